"""The replicas of a deployment, as Ray Serve's status lists them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments.serve_config import DEPLOYMENT, IMPORT_PATH, applications_of
from tinyclip_server.http.services import Services


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica."""

    id: str
    state: str
    worker_id: str
    """The process's id, which its metrics have too."""
    node_id: str | None
    node_ip: str | None
    started_at: datetime | None


def replicas_of(services: Services, row: DeploymentRow, status: dict[str, Any]) -> list[ReplicaStatus]:
    """Return the replicas of a deployment; none if the application of this name is another service's."""
    app = applications_of(status).get(row.name) or {}
    args = (app.get("deployed_app_config") or {}).get("args") or {}
    is_own = (app.get("deployed_app_config") or {}).get("import_path") == IMPORT_PATH
    if not is_own or (args.get("artifacts"), args.get("project")) != (services.store.root, row.project):
        return []
    return [_replica(one) for one in _replicas(app)]


def count_replicas(status: dict[str, Any]) -> int:
    """Return the number of replicas of all applications of Serve."""
    return sum(
        len(deployment.get("replicas") or ())
        for app in applications_of(status).values()
        for deployment in (app.get("deployments") or {}).values()
    )


def _replicas(app: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ((app.get("deployments") or {}).get(DEPLOYMENT) or {}).get("replicas") or []
    return found


def _replica(one: dict[str, Any]) -> ReplicaStatus:
    started = one.get("start_time_s")
    return ReplicaStatus(
        id=str(one.get("replica_id") or ""), state=str(one.get("state") or ""), worker_id=one.get("worker_id") or "",
        node_id=one.get("node_id") or None, node_ip=one.get("node_ip") or None,
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
    )  # fmt: skip
