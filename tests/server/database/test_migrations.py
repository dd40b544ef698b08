"""Upgrades from every revision to the tables of the code, and downgrades, with rows, on both databases."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from filelock import FileLock
from sqlalchemy import Connection
from tinyclip_server import cli
from tinyclip_server.database import migrate
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import CannotMigrate, WrongRevision, current, expect_head, go_to, head, revisions, upgrade
from tinyclip_server.database.tables import Base
from tinyclip_server.settings import Settings

from tests.server.database.conftest import FilledDatabase
from tests.server.database.rows import VERSION, Rows, read
from tests.server.service import on_both_databases

steps_back = pytest.mark.parametrize("revision", revisions()[1:])
at_revision = pytest.mark.parametrize("revision", revisions())
at_head = pytest.mark.parametrize("revision", [head()])


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Database]:
    """A database without tables."""
    database = Database(Settings(database_url=empty_database_url).async_database_url)
    yield database
    await database.close()


@pytest.fixture
async def filled(filled_database: FilledDatabase) -> AsyncIterator[Database]:
    """A database at a `revision`, with `before`, a row in every table."""
    database = Database(Settings(database_url=filled_database.url).async_database_url)
    yield database
    await database.close()


@pytest.fixture
def before(filled_database: FilledDatabase) -> Rows:
    return filled_database.rows


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def kept(before: Rows, after: Rows) -> Rows:
    """Return `before` without tables and columns that `after` does not have."""
    return {
        table: [{name: value for name, value in row.items() if name in after[table][0]} for row in rows] if after[table] else rows
        for table, rows in before.items()
        if table in after
    }


async def state_of(database: Database) -> tuple[Rows, str | None]:
    await database.engine.dispose()  # asyncpg keeps plans of statements on tables that have changed
    async with database.engine.connect() as connection:
        return await connection.run_sync(read), await current(connection)


class TestUpgrading:
    @on_both_databases
    async def test_the_newest_revision_has_the_tables_of_the_code(self, empty: Database) -> None:
        await upgrade(url_of(empty))

        async with empty.engine.connect() as connection:
            found = await connection.run_sync(differences)
            at = await current(connection)
        assert (found, at) == ([], head())

    @on_both_databases
    @at_revision
    async def test_rows_of_every_revision_are_kept(self, filled: Database, before: Rows, revision: str) -> None:
        await upgrade(url_of(filled))

        after, at = await state_of(filled)
        assert at == head()
        assert set(before) <= set(after)
        assert kept(after, before) == kept(before, after)
        async with filled.engine.connect() as connection:
            assert await connection.run_sync(differences) == []

    @on_both_databases
    @at_head
    async def test_repeated_it_is_a_no_op(self, filled: Database, before: Rows) -> None:
        await upgrade(url_of(filled))

        assert (await state_of(filled))[0] == before

    @on_both_databases
    async def test_several_at_once_wait_for_each_other(self, empty: Database) -> None:
        arguments = [str(Path(sys.executable).with_name("tinyclip-server")), "migrate"]
        environment = os.environ | {"TINYCLIP_DATABASE_URL": url_of(empty)}
        several = [
            await asyncio.create_subprocess_exec(*arguments, env=environment, stdout=asyncio.subprocess.PIPE) for _ in range(2)
        ]

        outputs = [(await one.communicate())[0].decode() for one in several]

        assert outputs == [f"the database is at revision {head()}\n"] * 2
        assert (await state_of(empty))[1] == head()


class TestGoingBack:
    @on_both_databases
    @steps_back
    async def test_one_step_keeps_the_rows_of_the_remaining_columns(
        self, filled: Database, before: Rows, revision: str
    ) -> None:
        earlier = revisions()[revisions().index(revision) - 1]

        await go_to(url_of(filled), earlier)

        after, at = await state_of(filled)
        assert at == earlier
        assert set(after) <= set(before)
        assert kept(after, before) == kept(before, after)
        await upgrade(url_of(filled))
        assert (await state_of(filled))[1] == head()

    @on_both_databases
    @pytest.mark.parametrize("revision", ["0009"])
    async def test_the_version_of_a_job_is_its_last_event_again(self, filled: Database, revision: str) -> None:
        async with filled.engine.begin() as connection:
            await connection.execute(sa.text("UPDATE jobs SET last_event = 41"))

        await go_to(url_of(filled), "0008")

        (job,) = (await state_of(filled))[0]["jobs"]
        assert (job["version"], job["last_event"]) == (41, 41)

    @on_both_databases
    @at_head
    async def test_the_last_step_removes_everything(self, filled: Database) -> None:
        await migrate._migrate(url_of(filled), lambda config, found: command.downgrade(config, "base"))

        assert await state_of(filled) == ({}, None)

    async def test_an_unknown_revision_is_refused_with_the_known_ones(self, empty: Database) -> None:
        with pytest.raises(CannotMigrate, match=r"no revision 9999; this TinyCLIP knows 0001"):
            await go_to(url_of(empty), "9999")


class TestRefusals:
    @on_both_databases
    async def test_an_empty_database(self, empty: Database) -> None:
        with pytest.raises(WrongRevision, match=f"no tables yet.* needs revision {head()}: run tinyclip-server migrate"):
            await expect_head(url_of(empty))

    @on_both_databases
    @at_head
    async def test_a_newer_database_is_not_changed(self, filled: Database) -> None:
        await stamp(filled, "9999")

        for attempt in (expect_head(url_of(filled)), upgrade(url_of(filled))):
            with pytest.raises(WrongRevision, match=f"at revision 9999.* needs {head()}.* migrate --to {head()}"):
                await attempt
        assert (await state_of(filled))[1] == "9999"

    async def test_an_older_database(self, empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        await upgrade(url_of(empty), revisions()[0])
        monkeypatch.setattr(migrate, "head", lambda: "0999")

        with pytest.raises(WrongRevision, match=r"at revision 0001, older than 0999 .* run tinyclip-server migrate"):
            await expect_head(url_of(empty))

    @at_head
    async def test_the_command_fails_with_the_message(
        self, filled: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await stamp(filled, "9999")
        monkeypatch.setenv("TINYCLIP_DATABASE_URL", url_of(filled))

        code, output = await asyncio.to_thread(_run_migrate, monkeypatch, capsys)

        assert (code, "A newer TinyCLIP wrote it" in output) == (1, True)


@at_head
async def test_a_migration_that_would_orphan_rows_changes_nothing(filled: Database) -> None:
    def drop_the_jobs(config: Config, found: str | None) -> None:
        config.attributes["connection"].exec_driver_sql("DELETE FROM jobs")

    with pytest.raises(CannotMigrate, match="nothing was changed"):
        await migrate._migrate(url_of(filled), drop_the_jobs)

    assert len((await state_of(filled))[0]["jobs"]) == 1


@at_head
async def test_a_recreated_table_keeps_the_rows_that_depend_on_it(filled: Database, before: Rows) -> None:
    def make_jobs_anew(config: Config, found: str | None) -> None:
        operations = Operations(MigrationContext.configure(config.attributes["connection"]))
        with operations.batch_alter_table("jobs", recreate="always"):
            pass

    await migrate._migrate(url_of(filled), make_jobs_anew)

    assert (await state_of(filled))[0] == before


async def test_the_wait_for_another_migration_is_limited(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.1)

    with FileLock(tmp_path / "empty.db.migrate.lock"), pytest.raises(CannotMigrate, match="another process"):
        await upgrade(url_of(empty))


async def stamp(database: Database, revision: str) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(sa.text(f"UPDATE {VERSION} SET version_num = :revision"), {"revision": revision})


def _run_migrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["tinyclip-server", "migrate"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err
