"""The configuration of Ray Serve. It is always complete: Serve deletes applications that are not listed."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from tinyclip.artifacts.paths import model_version
from tinyclip.schemas import ReplicaRange

from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments.target import Target, target_to_run
from tinyclip_server.http.services import Services
from tinyclip_server.settings import Settings

IMPORT_PATH = "tinyclip_workers.serving:build"
DEPLOYMENT = "Student"

REPLICA_CPUS = 0.5
"""CPUs that a replica reserves: less than the one thread it computes with, as a rolling update briefly doubles the replicas."""
SERVING_CPU = "tinyclip_serving_cpu"
"""The resource of an embedded cluster that its replicas reserve instead of CPUs, all of which a training may use."""
MAX_ONGOING = 64
"""Concurrent requests of a replica, which it computes in batches."""
MAX_QUEUED = 128
"""Requests that wait at the proxy; further ones are answered with 429."""


def serve_body(services: Services, rows: Iterable[DeploymentRow], running: dict[str, Any]) -> dict[str, Any]:
    """Return the body of `PUT /api/serve/applications/`; other applications on the same cluster are kept."""
    settings = services.settings
    ours = [application(services, row) for row in rows]
    others = [
        app["deployed_app_config"]
        for app in running.values()
        if app.get("deployed_app_config") and app["deployed_app_config"].get("import_path") != IMPORT_PATH
    ]
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.host, "port": settings.serve_port, "request_timeout_s": 60},
        "applications": ours + others,
    }


def application(services: Services, row: DeploymentRow) -> dict[str, Any]:
    """Return one deployment as a Serve application.

    A change of `args` starts new replicas beside the old ones; a change of `user_config` reconfigures running replicas.
    """
    target = target_to_run(row)
    return {
        "name": row.name,
        "route_prefix": f"/{row.name}",
        "import_path": IMPORT_PATH,
        "logging_config": {"enable_access_log": False},  # replicas write their own
        "args": {
            "name": row.name,
            "model": target.model,
            "model_uri": _folder(services, target.model),
            "artifacts": services.store.root,
            "engine": target.engine,
            "project": row.project,
            "auth": services.settings.auth,
            "hosts": _hosts(services.settings),
            "image_urls": services.settings.serve_image_urls,
            "image_url_hosts": services.settings.serve_image_url_hosts,
        },
        "deployments": [
            {
                "name": DEPLOYMENT,
                **_replicas(target.replicas),
                "user_config": _user_config(services, target),
                "ray_actor_options": _replica_resources(services.settings),
                "max_ongoing_requests": MAX_ONGOING,
                "max_queued_requests": MAX_QUEUED,
                "backpressure_config": {"status_code": 429, "retry_after_s": 2},
                "max_surge_percent": 100,
                "graceful_shutdown_timeout_s": 10,
            }
        ],
    }


def _hosts(settings: Settings) -> list[str] | None:
    """Return the names by which replicas are reached besides loopback ones; None: any, which a proxy in front has checked."""
    return None if settings.allow_public else [urlsplit(settings.serve_base_url).hostname or ""]


def _user_config(services: Services, target: Target) -> dict[str, Any]:
    canary = target.canary
    return {
        "canary": canary and {"model": canary.model, "model_uri": _folder(services, canary.model), "weight": canary.weight},
        "models": {model: _folder(services, model) for model in target.models},
        "resident": target.resident,
    }


def _folder(services: Services, model: str) -> str:
    name, _, version = model.partition("@")
    return services.store.uri(model_version(name, int(version)))


def _replica_resources(settings: Settings) -> dict[str, Any]:
    return {"num_cpus": 0, "resources": {SERVING_CPU: REPLICA_CPUS}} if settings.embedded else {"num_cpus": REPLICA_CPUS}


def _replicas(replicas: ReplicaRange) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    limits = {"min_replicas": replicas.min, "max_replicas": replicas.max}
    return {"autoscaling_config": {**limits, "target_ongoing_requests": replicas.target_requests}}
