"""The statements of a request, and connections that the database has cut off."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import JSON, Column, MetaData, Table, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from tinyclip_server.database import postgresql
from tinyclip_server.database.engine import Database
from tinyclip_server.settings import Settings

from tests.server.service import Service


@contextlib.contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Yield the first words of each statement of a block."""
    seen: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(" ".join(statement.split()[:3]).strip())

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_a_submit_reads_the_name_and_writes_each_table_once(service: Service) -> None:
    await service.submit()
    with statements(service.app.state.services.db) as seen:
        await service.submit()

    read, *written = [statement for statement in seen if not statement.startswith("BEGIN")]
    assert read.startswith("SELECT")
    assert written == ["INSERT INTO jobs", "INSERT INTO stages", "INSERT INTO job_labels", "INSERT INTO events"]


async def test_a_commit_on_sqlite_is_flushed_to_the_disk(service: Service) -> None:
    async with service.app.state.services.db.write() as session:
        assert await session.scalar(text("PRAGMA synchronous")) == 2


@pytest.mark.parametrize("value", ["é😀", "\ud800", float("inf"), 10**30, {"a": [None, True, 1.5]}], ids=ascii)
async def test_json_columns_hold_every_json_value(service: Service, value: object) -> None:
    table = Table("documents", MetaData(), Column("document", JSON))
    async with service.app.state.services.db.write() as session:
        await (await session.connection()).run_sync(table.metadata.create_all)
        await session.execute(insert(table), [{"document": {"value": value}}])

        assert await session.scalar(select(table.c.document)) == {"value": value}


@pytest.fixture
async def cut_off(database_url: str) -> AsyncIterator[Database]:
    """A database that has ended its only pooled connection."""
    url = Settings(database_url=database_url).async_database_url
    database = Database(url)
    async with database.read() as session:
        backend = await session.scalar(text("SELECT pg_backend_pid()"))
    other = create_async_engine(url)
    async with other.connect() as connection:
        assert await connection.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})
    await other.dispose()
    yield database
    await database.close()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
class TestConnections:
    async def test_an_idle_one_that_was_cut_off_is_replaced(
        self, cut_off: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "IDLE_SECONDS", 0.0)

        async with cut_off.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1

    async def test_one_cut_off_right_after_its_use_fails_once(self, cut_off: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgresql, "IDLE_SECONDS", 60.0)

        with pytest.raises(DBAPIError):
            async with cut_off.read() as session:
                await session.scalar(text("SELECT 1"))

        async with cut_off.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1
