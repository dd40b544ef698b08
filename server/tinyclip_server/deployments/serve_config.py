"""The configuration of Ray Serve. It is always complete: Serve deletes applications that are not listed.

Other systems may use the same Serve. An application belongs to this service if its `user_config` has the id of this installation;
all others are listed again as they are.
"""

from collections.abc import Container, Mapping, Sequence
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


def serve_body(services: Services, rows: Sequence[DeploymentRow], status: dict[str, Any], owner: str) -> dict[str, Any]:
    """Return the body of `PUT /api/serve/applications/`.

    `status` is Serve's present one: applications of others are listed again, and settings of the whole of Serve are kept.
    """
    others = others_on_serve(services, status, owner, {row.name for row in rows})
    kept = [app["deployed_app_config"] for app in others.values() if _is_declared(app)]
    return {**_instance(services, status), "applications": [application(services, row, owner) for row in rows] + kept}


def others_on_serve(services: Services, status: dict[str, Any], owner: str, names: Container[str]) -> dict[str, dict[str, Any]]:
    """Return the applications that this service, whose deployments have these names, did not create."""
    return {
        name: app for name, app in applications_of(status).items() if not _is_own(services, app, owner, known=name in names)
    }


def lost_by_an_update(others: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return the applications of others that an update would delete, because Serve does not report their configuration."""
    return [name for name, app in others.items() if _is_declared(app) and not app.get("deployed_app_config")]


def applications_of(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the applications in Serve's status by name."""
    return status.get("applications") or {}


def _is_own(services: Services, app: dict[str, Any], owner: str, *, known: bool) -> bool:
    """Return whether this service created an application; `known`: it has a deployment of that name."""
    config = app.get("deployed_app_config")
    if not config:  # while it is being deleted, or deployed by a program
        return known and app.get("source") != "imperative"
    if config.get("import_path") != IMPORT_PATH:
        return False
    user_configs = [each.get("user_config") or {} for each in config.get("deployments") or ()]
    tags = [user_config["owner"] for user_config in user_configs if "owner" in user_config]
    if not tags:  # of an older version
        return bool(config.get("args", {}).get("artifacts") == services.store.root)
    return owner in tags


def _is_declared(app: dict[str, Any]) -> bool:
    """Return whether an update deletes the application unless it is listed: not if it was deployed by a program (`serve.run`)."""
    return app.get("source") != "imperative" and app.get("status") != "DELETING"


def _instance(services: Services, status: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of Serve itself: the present ones if it runs, since others may have started it, else ours."""
    if status.get("proxy_location"):
        kept = ("proxy_location", "http_options", "grpc_options", "target_capacity")
        return {name: status[name] for name in kept if status.get(name) is not None}
    settings = services.settings
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.host, "port": settings.serve_port, "request_timeout_s": 60},
    }


def application(services: Services, row: DeploymentRow, owner: str) -> dict[str, Any]:
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
                "user_config": {**_user_config(services, target), "owner": owner, "revision": _revision(row)},
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


def _revision(row: DeploymentRow) -> str:
    """Return the number of the request, which no deployment of the same name has had before."""
    return f"{row.created_at:%Y%m%dT%H%M%S.%f}-{row.version}"


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
