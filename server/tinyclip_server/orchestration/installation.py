"""The binding of a database to one artifacts store, and of the store to this one database.

Fencing numbers, event segments and control files are in the store, so servers of one database must share it, and no other
database may use it. A random id is in both. A copy of a database has it too, so each server also writes a new random *owner*,
first into the database, then into the store, at its start and every few minutes. A database that does not know the owner in its
store is another one, or a copy from before: its servers do no work.
"""

import json
import logging
import secrets
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import INSTALLATION

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.engine import Database
from tinyclip_server.database.tables import InstallationRow
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.loops import wait

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
CHECK_SECONDS = 10.0
"""Interval at which a working server checks that the store is still its database's own."""
OWNER_SECONDS = 600.0
"""Time after which a working server writes a new owner: an older copy of its database is refused when it starts."""
KEPT_OWNERS = 50
"""More than all servers of a database write while one call to the store lasts."""
_ROW = select(InstallationRow).order_by(InstallationRow.created_at).limit(1)


class ForeignStore(Exception):
    """The artifacts store is not the one of the database; the message names both and the remedy."""


async def bind_when_reachable(services: Services) -> bool:
    """Bind as soon as database and store answer, and not before the store is the database's own.

    Return False if the server stops before.
    """
    while not services.stopping.is_set():
        try:
            await bind(services)
            return True
        except ForeignStore as error:
            logger.error("%s", error)
        except Exception as error:  # each kind of store raises errors of its own
            logger.warning("no work is begun yet: %s", error or type(error).__name__)
        await wait(RETRY_SECONDS, services.stopping)
    return False


async def until_foreign(services: Services) -> None:
    """Check the binding at intervals. Return once another database owns the store, or the server stops."""
    bound = Age()
    while True:
        await wait(CHECK_SECONDS, services.stopping)
        if services.stopping.is_set():
            return
        try:
            if bound.seconds() < OWNER_SECONDS:
                await _check(services)
            else:
                await bind(services)
                bound = Age()
        except ForeignStore as error:
            logger.error("work is stopped: %s", error)
            return
        except Exception as error:  # each kind of store raises errors of its own
            logger.warning("the owner of the artifacts store cannot be checked: %s", error or type(error).__name__)


async def bind(services: Services) -> None:
    """Check that database and store belong together, and write a new owner into both. Raises ForeignStore."""
    found, db, store = await _check(services), services.db, services.store
    data = await _new_owner(db)
    if found is None:
        await store.create_bytes(INSTALLATION, data)  # another server may be first
    else:
        await store.write_bytes(INSTALLATION, data)
    await _check(services)
    async with db.write() as session:
        (await installation(session, lock=True)).artifacts = store.root


async def take_over(db: Database, store: AsyncArtifactsStore, root: str | None = None) -> None:
    """Make the database the owner of a store, whichever it belonged to; `root` is the address that it will have.

    The id is the one in the store, so that the database owns the applications on Ray Serve too.
    """
    id = _document(await store.read_if_exists(INSTALLATION)).get("id")
    async with db.write() as session:
        row = await installation(session, lock=True)
        row.id, row.artifacts = id or row.id, root or store.root
    await store.write_bytes(INSTALLATION, await _new_owner(db))


async def foreign_store(db: Database, store: AsyncArtifactsStore) -> str | None:
    """Return the message of `ForeignStore` if database and store do not belong together."""
    return (await _compare(db, store))[1]


async def installation(session: AsyncSession, *, lock: bool = False) -> InstallationRow:
    """Return the row of this database, which the migration has created."""
    row = await session.scalar(_ROW.with_for_update() if lock else _ROW)
    if row is None:
        row = InstallationRow(id=secrets.token_hex(16))
        session.add(row)
        await session.flush()
    return row


async def _check(services: Services) -> bytes | None:
    """Return the document in the store; let the store refuse changes unless it is the database's own. Raises ForeignStore."""
    found, services.store.refusal = await _compare(services.db, services.store)
    if services.store.refusal is not None:
        raise ForeignStore(services.store.refusal)
    return found


async def _compare(db: Database, store: AsyncArtifactsStore) -> tuple[bytes | None, str | None]:
    """Return the document in the store, and the message if it is not this database's."""
    found = await store.read_if_exists(INSTALLATION)  # first: an owner is in the database before it is in the store
    async with db.read() as session:
        row = await session.scalar(_ROW)
    if found is None and row is not None and row.artifacts is not None:  # another server may have bound them in between
        found = await store.read_if_exists(INSTALLATION)
    document = _document(found)
    if row is not None and row.artifacts is not None and document.get("id") != row.id:
        return found, _message_of_bound(store.root, row.artifacts)
    own = found is None or (row is not None and _is_own(row, document))
    return found, None if own else _message(db, store, document)


async def _new_owner(db: Database) -> bytes:
    """Record a new owner in the database; return the document for the store."""
    owner = secrets.token_hex(16)
    async with db.write() as session:
        row = await installation(session, lock=True)
        row.owners = [*row.owners, owner][-KEPT_OWNERS:]
        return json.dumps({"id": row.id, "owner": owner, "database": _place(db)}).encode()


def _is_own(row: InstallationRow, document: dict[str, Any]) -> bool:
    """Return whether this database has written the document, or a server of revision 0010, which wrote no owner."""
    return document.get("id") == row.id and document.get("owner") in (None, *row.owners)


def _document(found: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(found or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _place(db: Database) -> str:
    """Return the address of a database without user and password."""
    url = db.engine.url
    host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.get_backend_name()}://{host}/{url.database}"


def _message_of_bound(root: str, bound: str) -> str:
    return (
        f"this database belongs to the artifacts store at {bound}, and TINYCLIP_ARTIFACTS is {root}, which is "
        f"another one: set it to the former. If the store was moved, move its file {INSTALLATION} too"
    )


def _message(db: Database, store: AsyncArtifactsStore, document: dict[str, Any]) -> str:
    own, other = _place(db), document.get("database")
    owner = f"a later copy of this database, {own}" if own == other else f"the database {other}, and this one is {own}"
    return (
        f"the artifacts store at {store.root} belongs to {owner}: set TINYCLIP_ARTIFACTS to the store of this database. If this "
        "one replaces the other one, stop the servers of both and run tinyclip-server reconcile --take-over"
    )
