"""Brings Serve to what the database says and the database to what Serve says of it.

Load the rows, talk to Serve without a transaction, apply what was seen to the rows that nobody has changed meanwhile.
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

LONGEST_MESSAGE = 2000
ANSWERING = (DeploymentState.READY, DeploymentState.UPDATING)


@dataclass
class Seen:
    """What Serve said; nothing of it is in the database yet."""

    applications: dict[str, Any] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """Deployments that Serve did not know before this round: whatever they were, nothing answers for them now."""
    refused: str | None = None
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What replicas say at their endpoint, of the running ones that are not known to answer or have a canary."""


class Outcome(NamedTuple):
    """Columns of the row that follow from what was seen."""

    state: DeploymentState
    message: str
    good: dict[str, Any] | None
    failed_version: int | None
    applied_version: int


async def reconcile(services: Services) -> None:
    """One round over all deployments."""
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
    for gone in (row for row in changed if _is_gone(row, seen)):
        await services.store.remove(deployment_folder(gone.name))  # before the row: who takes the name next finds nothing
    async with services.db.write() as session:
        for known in changed:
            row = await session.get(DeploymentRow, known.name, with_for_update=True)
            if row is None or row.version != known.version:
                continue
            if _is_gone(row, seen):
                await session.delete(row)
            else:
                for column, value in _outcome(row, seen)._asdict().items():
                    setattr(row, column, value)
                row.updated_at = now()


async def _observe(services: Services, rows: Sequence[DeploymentRow]) -> Seen:
    """Tell Serve what should run if it does not know yet, then look. Raises RayUnavailable."""
    seen = Seen(await _applications(services))
    seen.unknown = {row.name for row in rows} - seen.applications.keys()
    if any(_is_news(services, row, seen.applications) for row in rows):
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


def _is_news(services: Services, row: DeploymentRow, applications: dict[str, Any]) -> bool:
    """Whether Serve has to be told: of a change, of an end, or of everything again after it was started anew."""
    running = applications.get(row.name)
    if row.state == DeploymentState.DELETING:
        return running is not None and running.get("status") != "DELETING"
    if running is None or row.applied_version != row.version:
        return True
    return _parts(running.get("deployed_app_config") or {}) != _parts(application(services, row))


def _parts(config: dict[str, Any]) -> tuple[object, object]:
    """What of an application's configuration makes it answer differently."""
    return config.get("args"), [each.get("user_config") for each in config.get("deployments", ())]


def _changes(row: DeploymentRow, seen: Seen) -> bool:
    known = (row.state, row.message, row.good, row.failed_version, row.applied_version)
    return _is_gone(row, seen) or known != _outcome(row, seen)


def _is_gone(row: DeploymentRow, seen: Seen) -> bool:
    return row.state == DeploymentState.DELETING and row.name not in seen.applications


def _outcome(row: DeploymentRow, seen: Seen) -> Outcome:
    """What follows from what was seen."""
    state, message = _state(row, seen)
    good, failed = row.good, row.failed_version
    if state == DeploymentState.READY:
        good, failed = requested_target(row).model_dump(mode="json"), None
    elif _did_not_start(row, seen):
        if failed == row.version:
            good = None  # what answered before does not start either: what was asked for is left to Serve
        elif (before := last_known_good(row)) is not None and before != requested_target(row):
            failed = row.version
            message = f"{requested_target(row).model} did not start: {message}; {before.model} goes on answering"
    return Outcome(state, message, good, failed, row.version)


def _did_not_start(row: DeploymentRow, seen: Seen) -> bool:
    return seen.refused is None and seen.applications.get(row.name, {}).get("status") == "DEPLOY_FAILED"


def _state(row: DeploymentRow, seen: Seen) -> tuple[DeploymentState, str]:
    if row.state == DeploymentState.DELETING:
        return DeploymentState.DELETING, ""
    if seen.refused is not None:
        return DeploymentState.UNHEALTHY, f"Ray Serve refused the configuration: {seen.refused}"
    running = seen.applications.get(row.name)
    if row.failed_version == row.version and running is not None and not _did_not_start(row, seen):
        return DeploymentState.UNHEALTHY, row.message  # the one before answers, or is on its way back
    if running is None:
        return DeploymentState.DEPLOYING, "Ray Serve has not begun yet"
    if running["status"] == "RUNNING" and (row.state == DeploymentState.READY or row.name in seen.health):
        return DeploymentState.READY, _of_canary(seen.health.get(row.name, {}))
    message = _message(running)
    if running["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
        return DeploymentState.UNHEALTHY, message or f"Ray Serve says {running['status']}"
    if running["status"] == "RUNNING":
        message = "it runs, but the proxy does not pass requests to it yet"
    answering = row.state in ANSWERING and row.name not in seen.unknown
    return (DeploymentState.UPDATING if answering else DeploymentState.DEPLOYING), message


def _of_canary(health: dict[str, Any]) -> str:
    """What a replica says of a canary that it could not load."""
    canary = health.get("canary") or {}
    return f"canary {canary['model']} gets no queries: {canary['error']}"[:LONGEST_MESSAGE] if canary.get("error") else ""


def _message(running: dict[str, Any]) -> str:
    """What Serve says of the replicas tells more than what it says of the application; of a traceback, the last line does."""
    of_replicas = ((running.get("deployments") or {}).get(DEPLOYMENT) or {}).get("message")
    text = str(of_replicas or running.get("message") or "").strip()
    return (text.splitlines()[-1].strip() if "Traceback" in text else text)[:LONGEST_MESSAGE]
