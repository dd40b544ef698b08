"""The binding of a database to one artifacts store.

Fencing numbers, event segments and control files are in the store, so servers of one database must share it. A random id is in
both; a server whose store has another id, or none, does no work.
"""

import asyncio
import json
import logging
import secrets

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import INSTALLATION

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.tables import InstallationRow
from tinyclip_server.http.services import Services

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
_ROW = select(InstallationRow).order_by(InstallationRow.created_at).limit(1)


class ForeignStore(Exception):
    """The artifacts store is not the one of the database; the message names both and the remedy."""


async def bind_when_reachable(services: Services) -> None:
    """Bind as soon as database and store answer, and not before the store is the database's own."""
    while True:
        try:
            await bind(services)
            return
        except ForeignStore as error:
            logger.error("%s", error)
        except Exception as error:  # each kind of store raises errors of its own
            logger.warning("no work is begun yet: %s", error or type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)


async def bind(services: Services) -> None:
    """Check that database and store belong together; bind a new database to its store. Raises ForeignStore."""
    async with services.db.write() as session:
        row = await installation(session, lock=True)
        bound, id = row.artifacts, row.id
    found = await services.store.read_if_exists(INSTALLATION)
    if bound is None:
        if found is None:
            await services.store.create_bytes(INSTALLATION, json.dumps({"id": id}).encode())
            found = await services.store.read_if_exists(INSTALLATION)
        await _record(services, id, _id(found))
    elif _id(found) != id:
        raise ForeignStore(_message(services.store.root, bound))


async def _record(services: Services, before: str, of_store: str) -> None:
    """Give the database the id of its store, unless another server has bound it meanwhile. Raises ForeignStore."""
    async with services.db.write() as session:
        row = await installation(session, lock=True)
        if row.artifacts is None and row.id == before:
            row.id, row.artifacts = of_store, services.store.root
        elif row.id != of_store:
            raise ForeignStore(_message(services.store.root, row.artifacts or "another place"))


async def foreign_store(session: AsyncSession, store: AsyncArtifactsStore) -> str | None:
    """Return the message of `ForeignStore` if the database is bound to another store than this one."""
    row = await session.scalar(_ROW)
    if row is None or row.artifacts is None or _id(await store.read_if_exists(INSTALLATION)) == row.id:
        return None
    return _message(store.root, row.artifacts)


async def installation(session: AsyncSession, *, lock: bool = False) -> InstallationRow:
    """Return the row of this database, which the migration has created."""
    row = await session.scalar(_ROW.with_for_update() if lock else _ROW)
    if row is None:
        row = InstallationRow(id=secrets.token_hex(16))
        session.add(row)
        await session.flush()
    return row


def _id(found: bytes | None) -> str:
    try:
        return str(json.loads(found or b"{}").get("id", ""))
    except (ValueError, AttributeError):
        return ""


def _message(root: str, bound: str) -> str:
    return (
        f"this database belongs to the artifacts store at {bound}, and TINYCLIP_ARTIFACTS is {root}, which is "
        f"another one: set it to the former. If the store was moved, move its file {INSTALLATION} too"
    )
