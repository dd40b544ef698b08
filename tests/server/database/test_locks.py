"""Locks of a database: a file beside SQLite's, and PostgreSQL's advisory locks, which end with their session."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from tinyclip_server.database import postgresql
from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import DatabaseInUse, SessionLock, sole_server, turn
from tinyclip_server.settings import Settings

from tests.tcp_relay import relay

KEY = 42


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=database_url).async_database_url)
    yield database
    await database.close()


async def end_sessions(database: Database) -> None:
    """End the sessions that hold an advisory lock, as PostgreSQL does when it restarts."""
    async with database.engine.connect() as connection:
        holders = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        assert (await connection.scalars(text(holders))).all() == [True]


def test_one_server_uses_a_sqlite_file_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "data.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "data.db")

    with (
        sole_server(f"sqlite+aiosqlite:///{tmp_path}/data.db"),
        pytest.raises(DatabaseInUse, match=r"link\.db"),
        sole_server(f"sqlite+aiosqlite:///{tmp_path}/link.db"),
    ):
        pass
    with sole_server(f"sqlite+aiosqlite:///{tmp_path}/link.db"):
        pass


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
class TestSessionLock:
    async def test_one_session_holds_it(self, database: Database) -> None:
        first, second = SessionLock(database, KEY), SessionLock(database, KEY)

        held = [await first.acquire(), await second.acquire()]
        await first.close()
        after = await second.acquire()
        await second.close()

        assert (held, after) == ([True, False], True)

    async def test_a_lost_session_takes_it_again(self, database: Database) -> None:
        lock = SessionLock(database, KEY)
        assert await lock.acquire()
        await end_sessions(database)

        assert await lock.still_held()
        await lock.close()

    async def test_a_lost_session_finds_it_taken(self, database: Database) -> None:
        lock, other = SessionLock(database, KEY), SessionLock(database, KEY)
        assert await lock.acquire()
        await end_sessions(database)
        assert await other.acquire()

        assert not await lock.still_held()
        await lock.close()
        await other.close()

    async def test_it_is_not_held_while_its_session_hangs_and_taken_again_from_the_session_that_remains(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 0.5)
        at = urlsplit(database_url)
        async with relay(at.port or 5432) as way:
            url = at._replace(scheme="postgresql+asyncpg", netloc=f"{at.netloc.rpartition(':')[0]}:{way.port}").geturl()
            database = Database(url, statement_s=0.5)
            lock, other = SessionLock(database, KEY), SessionLock(database, KEY)
            assert await lock.acquire()
            way.hang()

            async with asyncio.timeout(10):
                with pytest.raises(OperationalError):
                    await lock.still_held()

            way.recover(old=False)  # PostgreSQL has not noticed that the connection is cut off
            assert not await other.acquire()
            assert await lock.still_held()
            await lock.close()
            await database.close()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
class TestTurn:
    async def test_one_session_has_it(self, database: Database) -> None:
        async with turn(database, KEY, 60.0) as first, turn(database, KEY, 60.0) as second:
            assert (first is not None, second) == (True, None)

        async with turn(database, KEY, 60.0) as again:
            assert again is not None

    async def test_a_holder_that_is_idle_for_too_long_loses_it(self, database: Database) -> None:
        async with turn(database, KEY, 0.05) as suspended:
            assert suspended is not None
            async with database.engine.connect() as connection:
                gone = "SELECT pg_sleep(0.01), count(*) FROM pg_locks WHERE locktype = 'advisory'"
                while (await connection.execute(text(gone))).one()[1]:
                    pass
            async with turn(database, KEY, 60.0) as other:
                assert other is not None

            with pytest.raises(DBAPIError):
                await suspended.scalar(text("SELECT 1"))
