"""The reconcile loop of deployments: Ray Serve gets what the database wants, and the database gets what Serve reports.

Load the rows, call Serve without a transaction, apply the observation to the rows that have not changed in the meantime.
`updates` changes Serve; what a suspended server sends too late is found and repaired by the next round of any server.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyclip.artifacts.paths import deployment_folder
from tinyclip.schemas import DeploymentState

from tinyclip_server.backends.ray_gateway import RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.locks import REMOVAL_TURN_SECONDS, key_of, turn
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository
from tinyclip_server.deployments.serve_config import DEPLOYMENT, applications_of, others_on_serve
from tinyclip_server.deployments.service import endpoint
from tinyclip_server.deployments.target import last_known_good, requested_target
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.installation import installation
from tinyclip_server.orchestration.serve.updates import needs_update, update_serve

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 2000
MAX_AGE_SECONDS = 30.0
"""Age at which an observation is dropped: this server was suspended, and others may have seen newer states since."""
ANSWERING = (DeploymentState.READY, DeploymentState.UPDATING)


@dataclass
class ServeObservation:
    """Serve's report; nothing of it is in the database yet."""

    rows: Sequence[DeploymentRow]
    """The deployments that it was compared with."""
    applications: dict[str, Any] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """Deployments that Serve did not know before this round: whatever their state was, nothing answers for them now."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Deployments that Serve could not be configured for, and why."""
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    """A replica's report, of running deployments that are not yet ready or have a canary."""
    proxy: str = ""
    """Why running deployments get no requests."""
    age: Age = field(default_factory=Age)


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
        rows, owner = await repository.of_all_projects(session), (await installation(session)).id
    if rows:
        services.served.set()
    elif not services.served.is_set():  # Serve is started by the first deployment
        return
    try:
        seen = await _observe(services, rows, owner)
    except RayUnavailable as error:
        logger.info("deployments: %s", error)
        return
    if seen is not None:
        await _apply(services, seen)


async def _observe(services: Services, rows: Sequence[DeploymentRow], owner: str) -> ServeObservation | None:
    """Configure Serve if that is necessary, then read its status. None: another server is at it. Raises RayUnavailable."""
    seen, status = ServeObservation(rows), await services.ray.serve_status()
    known_before = _own(services, rows, status, owner).keys()
    if needs_update(services, rows, status, owner):
        update = await update_serve(services)
        if update is None:
            return None
        seen = ServeObservation(update.rows, blocked=update.blocked)
        status = await services.ray.serve_status()
    seen.applications, seen.proxy = _own(services, seen.rows, status, owner), _proxy_message(status)
    seen.unknown = {row.name for row in seen.rows} - known_before
    asked = [row for row in seen.rows if _is_asked(row, seen)]
    reports = await asyncio.gather(*(services.ray.deployment_health(endpoint(services.settings, row.name)) for row in asked))
    seen.health = {row.name: report for row, report in zip(asked, reports, strict=True) if report is not None}
    return seen


def _own(services: Services, rows: Sequence[DeploymentRow], status: dict[str, Any], owner: str) -> dict[str, Any]:
    others = others_on_serve(services, status, owner, {row.name for row in rows})
    return {name: app for name, app in applications_of(status).items() if name not in others}


def _is_asked(row: DeploymentRow, seen: ServeObservation) -> bool:
    running = seen.applications.get(row.name, {}).get("status") == "RUNNING"
    return running and (row.state != DeploymentState.READY or row.canary_version is not None)


async def _apply(services: Services, seen: ServeObservation) -> None:
    """Write the observation to the rows that have not changed since they were read; remove the deleted last, one by one."""
    changed = [row for row in seen.rows if _changes(row, seen)]
    await _write(services, seen, [row for row in changed if not _is_deleted(row, seen)])
    for deleted in (row for row in changed if _is_deleted(row, seen)):
        async with turn(services.db, key_of(deployment_folder(deleted.name)), REMOVAL_TURN_SECONDS) as session:
            if session is not None:
                await _remove(services, seen, deleted)


async def _remove(services: Services, seen: ServeObservation, deleted: DeploymentRow) -> None:
    """Remove the files, then the row: the next deployment of that name starts empty."""
    try:
        if await _is_unchanged(services, deleted, seen):
            await services.store.remove(deployment_folder(deleted.name))
    except OSError as error:
        logger.warning("the files of deleted deployment %s cannot be removed yet: %s", deleted.name, error)
        return
    await _write(services, seen, [deleted])


async def _write(services: Services, seen: ServeObservation, changed: Sequence[DeploymentRow]) -> None:
    if not changed or seen.age.seconds() > MAX_AGE_SECONDS:
        return
    async with services.db.write() as session:
        for known in changed:
            row = await session.get(DeploymentRow, known.name, with_for_update=True)
            if row is None or (row.version, row.updated_at) != (known.version, known.updated_at):
                continue
            if _is_deleted(row, seen):
                await session.delete(row)
            else:
                for column, value in _outcome(row, seen)._asdict().items():
                    setattr(row, column, value)
                row.updated_at = now()


async def _is_unchanged(services: Services, known: DeploymentRow, seen: ServeObservation) -> bool:
    """Return whether a row is as it was read: another server may have deleted it, and a user created it again."""
    async with services.db.read() as session:
        row = await session.get(DeploymentRow, known.name)
    same = row is not None and (row.version, row.created_at) == (known.version, known.created_at)
    return same and seen.age.seconds() <= MAX_AGE_SECONDS


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
    return row.name not in seen.blocked and seen.applications.get(row.name, {}).get("status") == "DEPLOY_FAILED"


def _state(row: DeploymentRow, seen: ServeObservation) -> tuple[DeploymentState, str]:
    if row.state == DeploymentState.DELETING:
        return DeploymentState.DELETING, ""
    if row.name in seen.blocked:
        return DeploymentState.UNHEALTHY, seen.blocked[row.name][:MAX_MESSAGE_CHARS]
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
        message = seen.proxy
    answering = row.state in ANSWERING and row.name not in seen.unknown
    return (DeploymentState.UPDATING if answering else DeploymentState.DEPLOYING), message


def _proxy_message(status: dict[str, Any]) -> str:
    """Return why no request arrives: Serve's proxies do not run, or their routes are not yet up to date."""
    states = {proxy.get("status") for proxy in (status.get("proxies") or {}).values()}
    if not states or "HEALTHY" in states:
        return "it runs, but the proxy does not pass requests to it yet"
    port = (status.get("http_options") or {}).get("port")
    return (
        f"it runs, but Ray Serve's proxy does not; if that lasts, another program probably listens on port {port} of the head: "
        "stop it, or shut Serve down and set another TINYCLIP_SERVE_PORT"
    )


def _canary_message(health: dict[str, Any]) -> str:
    """Return why a replica could not load its canary, if it could not."""
    canary = health.get("canary") or {}
    return f"canary {canary['model']} gets no queries: {canary['error']}"[:MAX_MESSAGE_CHARS] if canary.get("error") else ""


def _message(running: dict[str, Any]) -> str:
    """Return Serve's message about the replicas, which is more specific than the application's; of a traceback the last line."""
    of_replicas = ((running.get("deployments") or {}).get(DEPLOYMENT) or {}).get("message")
    text = str(of_replicas or running.get("message") or "").strip()
    return (text.splitlines()[-1].strip() if "Traceback" in text else text)[:MAX_MESSAGE_CHARS]
