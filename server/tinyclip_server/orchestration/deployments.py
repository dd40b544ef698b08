"""The reconcile loop of deployments: Ray Serve gets what the database wants, and the database gets what Serve reports.

Load the rows, call Serve without a transaction, apply the observation to the rows that have not changed in the meantime.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyclip.artifacts.paths import deployment_folder
from tinyclip.schemas import DeploymentState

from tinyclip_server.backends.ray_gateway import RayRefused, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository
from tinyclip_server.deployments.serve_config import DEPLOYMENT, application, serve_body
from tinyclip_server.deployments.target import last_known_good, requested_target
from tinyclip_server.http.services import Services

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 2000
ANSWERING = (DeploymentState.READY, DeploymentState.UPDATING)


@dataclass
class ServeObservation:
    """Serve's report; nothing of it is in the database yet."""

    applications: dict[str, Any] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """Deployments that Serve did not know before this round: whatever their state was, nothing answers for them now."""
    refused: str | None = None
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    """A replica's report, of running deployments that are not yet ready or have a canary."""


class Outcome(NamedTuple):
    """Columns of the row that follow from an observation."""

    state: DeploymentState
    message: str
    good: dict[str, Any] | None
    failed_version: int | None
    applied_version: int


async def reconcile(services: Services) -> None:
    """Run one round over all deployments."""
    async with services.db.read() as session:
        rows = await repository.of_all_projects(session)
    if not rows:  # Serve is started by the first deployment
        return
    try:
        seen = await _observe(services, rows)
    except RayUnavailable as error:
        logger.info("deployments: %s", error)
        return
    changed = [row for row in rows if _changes(row, seen)]
    if not changed:
        return
    for deleted in (row for row in changed if _is_deleted(row, seen)):
        await services.store.remove(deployment_folder(deleted.name))  # before the row: the next of that name starts empty
    async with services.db.write() as session:
        for known in changed:
            row = await session.get(DeploymentRow, known.name, with_for_update=True)
            if row is None or row.version != known.version:
                continue
            if _is_deleted(row, seen):
                await session.delete(row)
            else:
                for column, value in _outcome(row, seen)._asdict().items():
                    setattr(row, column, value)
                row.updated_at = now()


async def _observe(services: Services, rows: Sequence[DeploymentRow]) -> ServeObservation:
    """Configure Serve if that is necessary, then read its status. Raises RayUnavailable."""
    seen = ServeObservation(await _applications(services))
    seen.unknown = {row.name for row in rows} - seen.applications.keys()
    if any(_must_configure(services, row, seen.applications) for row in rows):
        wanted = [row for row in rows if row.state != DeploymentState.DELETING]
        try:
            await services.ray.put_serve_applications(serve_body(services, wanted, seen.applications))
        except RayRefused as error:
            seen.refused = str(error)
        seen.applications = await _applications(services)
    for row in rows:
        running = seen.applications.get(row.name, {}).get("status") == "RUNNING"
        if running and (row.state != DeploymentState.READY or row.canary_version is not None):
            health = await services.ray.deployment_health(_endpoint(services, row))
            seen.health |= {} if health is None else {row.name: health}
    return seen


def _endpoint(services: Services, row: DeploymentRow) -> str:
    return f"{services.settings.serve_base_url}/{row.name}"


async def _applications(services: Services) -> dict[str, Any]:
    found: dict[str, Any] = (await services.ray.serve_status()).get("applications") or {}
    return found


def _must_configure(services: Services, row: DeploymentRow, applications: dict[str, Any]) -> bool:
    """Return whether Serve needs the configuration: after a change, for a deletion, or after Serve was restarted."""
    running = applications.get(row.name)
    if row.state == DeploymentState.DELETING:
        return running is not None and running.get("status") != "DELETING"
    if running is None or row.applied_version != row.version:
        return True
    return _compared(running.get("deployed_app_config") or {}) != _compared(application(services, row))


def _compared(config: dict[str, Any]) -> tuple[object, object]:
    """Return the parts of an application's configuration that change its answers."""
    return config.get("args"), [each.get("user_config") for each in config.get("deployments", ())]


def _changes(row: DeploymentRow, seen: ServeObservation) -> bool:
    known = (row.state, row.message, row.good, row.failed_version, row.applied_version)
    return _is_deleted(row, seen) or known != _outcome(row, seen)


def _is_deleted(row: DeploymentRow, seen: ServeObservation) -> bool:
    return row.state == DeploymentState.DELETING and row.name not in seen.applications


def _outcome(row: DeploymentRow, seen: ServeObservation) -> Outcome:
    """Return the columns that follow from an observation."""
    state, message = _state(row, seen)
    good, failed = row.good, row.failed_version
    if state == DeploymentState.READY:
        good, failed = requested_target(row).model_dump(mode="json"), None
    elif _did_not_start(row, seen):
        if failed == row.version:
            good = None  # the last known good does not start either: leave the requested one to Serve
        elif (before := last_known_good(row)) is not None and before != requested_target(row):
            failed = row.version
            message = f"{requested_target(row).model} did not start: {message}; {before.model} keeps answering"
    return Outcome(state, message, good, failed, row.version)


def _did_not_start(row: DeploymentRow, seen: ServeObservation) -> bool:
    return seen.refused is None and seen.applications.get(row.name, {}).get("status") == "DEPLOY_FAILED"


def _state(row: DeploymentRow, seen: ServeObservation) -> tuple[DeploymentState, str]:
    if row.state == DeploymentState.DELETING:
        return DeploymentState.DELETING, ""
    if seen.refused is not None:
        return DeploymentState.UNHEALTHY, f"Ray Serve refused the configuration: {seen.refused}"
    running = seen.applications.get(row.name)
    if row.failed_version == row.version and running is not None and not _did_not_start(row, seen):
        return DeploymentState.UNHEALTHY, row.message  # the last known good answers, or is being restored
    if running is None:
        return DeploymentState.DEPLOYING, "Ray Serve has not started it yet"
    if running["status"] == "RUNNING" and (row.state == DeploymentState.READY or row.name in seen.health):
        return DeploymentState.READY, _canary_message(seen.health.get(row.name, {}))
    message = _message(running)
    if running["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
        return DeploymentState.UNHEALTHY, message or f"Ray Serve reports {running['status']}"
    if running["status"] == "RUNNING":
        message = "it runs, but the proxy does not pass requests to it yet"
    answering = row.state in ANSWERING and row.name not in seen.unknown
    return (DeploymentState.UPDATING if answering else DeploymentState.DEPLOYING), message


def _canary_message(health: dict[str, Any]) -> str:
    """Return why a replica could not load its canary, if it could not."""
    canary = health.get("canary") or {}
    return f"canary {canary['model']} gets no queries: {canary['error']}"[:MAX_MESSAGE_CHARS] if canary.get("error") else ""


def _message(running: dict[str, Any]) -> str:
    """Return Serve's message about the replicas, which is more specific than the application's; of a traceback the last line."""
    of_replicas = ((running.get("deployments") or {}).get(DEPLOYMENT) or {}).get("message")
    text = str(of_replicas or running.get("message") or "").strip()
    return (text.splitlines()[-1].strip() if "Traceback" in text else text)[:MAX_MESSAGE_CHARS]
