"""Changes of Ray Serve, by one server at a time and from rows that were read a moment before.

Serve's `PUT` replaces everything and has no precondition. So a server sends it only while it holds a lock of the database, which
PostgreSQL takes from a suspended holder, and right after a statement of the session that holds it. Only a request that is
delayed after that, on its way to Ray, can still come too late; the next round of any server finds and repairs its effect.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError
from tinyclip.schemas import DeploymentState

from tinyclip_server.backends.ray_gateway import RayRefused
from tinyclip_server.database.locks import turn
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository
from tinyclip_server.deployments.serve_config import (
    application,
    applications_of,
    lost_by_an_update,
    others_on_serve,
    serve_body,
)
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.installation import installation

logger = logging.getLogger(__name__)

SERVE_LOCK = 7_201_324
"""PostgreSQL's advisory lock of the server that changes Serve."""
LOCK_SECONDS = 75.0
"""Idle time after which PostgreSQL takes the lock away; longer than the timeout of a request to Serve (60 s)."""
SEND_SECONDS = 5.0
"""Least time left, after the last statement under the lock, in which the request must be sent."""


@dataclass
class ServeUpdate:
    """A completed update of Serve."""

    rows: Sequence[DeploymentRow]
    """The deployments that it was made from."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Deployments that Serve could not be configured for, and why."""


def needs_update(services: Services, rows: Sequence[DeploymentRow], status: dict[str, Any], owner: str) -> bool:
    """Return whether Serve differs from the rows: after a change, after Serve was restarted, or by a request that came late."""
    return bool(_forgotten(services, rows, status, owner) or _pending(services, rows, applications_of(status), owner))


async def update_serve(services: Services) -> ServeUpdate | None:
    """Configure Serve from the present rows. Return None if another server is at it. Raises RayUnavailable."""
    try:
        async with turn(services.db, SERVE_LOCK, LOCK_SECONDS) as session:
            if session is None:
                return None
            status, age = await services.ray.serve_status(), Age()
            rows = await repository.of_all_projects(session)
            owner = (await installation(session)).id
            return await _send(services, rows, status, owner, age)
    except DBAPIError as error:
        logger.warning("Serve is not changed: the session that held the lock is lost: %s", error.orig)
        return None


async def _send(
    services: Services, rows: Sequence[DeploymentRow], status: dict[str, Any], owner: str, age: Age
) -> ServeUpdate | None:
    """Send the configuration, unless it would delete what others have created, or too much time has passed."""
    update, names, applications = ServeUpdate(rows), {row.name for row in rows}, applications_of(status)
    others = others_on_serve(services, status, owner, names)
    taken = others.keys() & names
    update.blocked = {name: f"Ray Serve has an application {name} that this service did not create" for name in taken}
    own = [row for row in rows if row.name not in taken]
    pending = _pending(services, own, applications, owner)
    if not pending and not _forgotten(services, rows, status, owner):
        return update
    if lost := lost_by_an_update(others):
        message = f"Ray Serve does not report the configuration of {', '.join(lost)}, which this service did not create, and "
        update.blocked |= dict.fromkeys(pending, message + "an update without it would delete it")
        return update
    wanted = [row for row in own if row.state != DeploymentState.DELETING]
    body = serve_body(services, wanted, status, owner)
    if age.seconds() > SEND_SECONDS:
        return None
    try:
        await services.ray.put_serve_applications(body)
    except RayRefused as error:
        update.blocked |= dict.fromkeys(pending, f"Ray Serve refused the configuration: {error}")
    return update


def _forgotten(services: Services, rows: Sequence[DeploymentRow], status: dict[str, Any], owner: str) -> list[str]:
    """Return the applications of this service that have no deployment, as after a request that came late."""
    names = {row.name for row in rows}
    others = others_on_serve(services, status, owner, names)
    return [name for name in applications_of(status) if name not in names and name not in others]


def _pending(services: Services, rows: Sequence[DeploymentRow], applications: dict[str, Any], owner: str) -> list[str]:
    return [row.name for row in rows if _differs(services, row, applications, owner)]


def _differs(services: Services, row: DeploymentRow, applications: dict[str, Any], owner: str) -> bool:
    running = applications.get(row.name)
    if row.state == DeploymentState.DELETING:
        return running is not None and running.get("status") != "DELETING"
    if running is None or row.applied_version != row.version:
        return True
    return _compared(running.get("deployed_app_config") or {}) != _compared(application(services, row, owner))


def _compared(config: dict[str, Any]) -> tuple[object, object]:
    """Return the parts of an application's configuration that change its answers, and the revision, for all others."""
    return config.get("args"), [each.get("user_config") for each in config.get("deployments", ())]
