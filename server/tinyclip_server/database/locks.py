"""Locks that belong to a database, so that all servers which use it see them, whatever their folders and settings are."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tinyclip_server.database.engine import Database

EMBEDDED_LOCK = 7_201_323
"""PostgreSQL's advisory lock of the one server with an embedded cluster."""

REMOVAL_TURN_SECONDS = 75.0
"""Idle time after which PostgreSQL takes the turn of removing a folder away; longer than a removal may last (60 s)."""

OWN_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
OWN_LOCK = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = :key AND pid = pg_backend_pid())"
END_SESSION = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid = :pid AND backend_start = :backend_start AND pid <> pg_backend_pid()
"""


class DatabaseInUse(Exception):
    """Another server holds the lock; the message names the database and the remedy."""


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database; None for one in memory or on PostgreSQL."""
    parsed = make_url(url)
    in_file = parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:"
    return Path(str(parsed.database)) if in_file else None


@contextlib.contextmanager
def sole_server(url: str) -> Iterator[None]:
    """Hold a lock file beside a SQLite file, which only one server may use; a no-op for PostgreSQL. Raises DatabaseInUse."""
    file = sqlite_file(url)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(f"{file.resolve()}.lock").acquire(timeout=0)
    except Timeout:
        message = f"another tinyclip-server uses the database {file}; stop it, or set TINYCLIP_DATABASE_URL to another file"
        raise DatabaseInUse(message) from None
    with held:
        yield


class SessionLock:
    """A lock of PostgreSQL that is held for as long as its session lives; on SQLite a no-op."""

    def __init__(self, database: Database, key: int) -> None:
        self._database, self._key = database, key
        self._connection: AsyncConnection | None = None
        self._session: dict[str, Any] | None = None
        """The process of PostgreSQL that got the lock, and its start."""

    async def acquire(self) -> bool:
        """Try to take the lock; return False if another session holds it. Raises SQLAlchemyError or OSError.

        An earlier session of this lock is ended first: if its connection was cut off, PostgreSQL may not have noticed.
        """
        if self._database.engine.dialect.name != "postgresql":
            return True
        held = False
        self._connection = await self._database.engine.connect()
        try:
            await self._connection.execution_options(isolation_level="AUTOCOMMIT")
            if self._session is not None:
                await self._connection.execute(text(END_SESSION), self._session)
            held = bool(await self._connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}))
            if held:
                self._session = dict((await self._connection.execute(text(OWN_SESSION))).mappings().one())
        finally:
            if not held:
                await self.close()
        return held

    async def still_held(self) -> bool:
        """Return whether the session lives; else take the lock again and return whether that succeeded. Raises as `acquire`.

        A session that hangs is lost, since PostgreSQL may have ended it.
        """
        if self._connection is None:
            return await self.acquire()
        with contextlib.suppress(SQLAlchemyError, OSError):
            if await self._connection.scalar(text(OWN_LOCK), {"key": self._key}):
                return True
        await self.close()
        return await self.acquire()

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await self._connection.scalar(text("SELECT pg_advisory_unlock_all()"))  # the pool keeps the session
        if self._connection is not None:
            await self._connection.close()
        self._connection = None


def key_of(name: str) -> int:
    """Return the key of PostgreSQL's advisory lock of something with a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


@contextlib.asynccontextmanager
async def turn(database: Database, key: int, max_idle_s: float) -> AsyncIterator[AsyncSession | None]:
    """Yield a session that alone holds PostgreSQL's lock `key`; None if another one does. SQLite has only one server.

    PostgreSQL ends the session, and with it the lock, once it has been idle for `max_idle_s` seconds, also if its process is
    suspended. From then on every statement of the session raises DBAPIError.
    """
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(database.read())
        if database.engine.dialect.name != "postgresql":
            yield session
            return
        await session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {int(max_idle_s * 1000)}"))
        held = await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key})
        yield session if held else None
