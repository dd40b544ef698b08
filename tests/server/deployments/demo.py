"""The deployment `demo`, which the tests of deployments create and change."""

from typing import Any

from tests.server.fakes import ScriptedRay
from tests.server.service import Service

MODEL = "emoji-half"
DEMO = "/v1/deployments/demo"


async def put(service: Service, path: str = DEMO, **changes: Any) -> dict[str, Any]:
    """Create or update the deployment; of version 1, unless `model` is given."""
    return await service.call("PUT", path, {"model": f"{MODEL}@1", **changes}, status=202)


async def get(service: Service) -> dict[str, Any]:
    return await service.get(DEMO)


def applications(ray: ScriptedRay) -> dict[str, Any]:
    """Return the applications of the newest configuration of Serve, by name."""
    return {app["name"]: app for app in ray.serve_bodies[-1]["applications"]}
