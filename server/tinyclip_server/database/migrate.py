"""Migrating a database to a revision, one server at a time, and checking that database and code match."""

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import sqlite_file

ADVISORY_LOCK = 7_201_321
"""PostgreSQL's advisory lock under which one server at a time migrates."""
LOCK_SECONDS = 300.0
"""How long to wait for the migration of another server."""


Change = Callable[[Config, str | None], None]
"""A call of Alembic, given the database's revision."""


class CannotMigrate(Exception):
    """The migration failed; the message names the cause and the remedy."""


class WrongRevision(Exception):
    """The database is not at the revision that this code needs; the message names the remedy."""


class Fit(StrEnum):
    """The relation of a database's revision to the code's."""

    EXACT = "exact"
    EMPTY = "empty"
    OLDER = "older"
    NEWER = "newer"


async def upgrade(url: str, revision: str = "head") -> None:
    """Upgrade the database at an async URL in one transaction, creating the folder of a SQLite file first.

    Raises WrongRevision for a database newer than this code, and CannotMigrate.
    """
    await _migrate(url, lambda config, found: command.upgrade(config, revision))


async def go_to(url: str, revision: str) -> None:
    """Upgrade or downgrade to a revision; a downgrade drops what later ones added. Raises as `upgrade`."""
    known = revisions()
    if revision not in known:
        raise CannotMigrate(f"there is no revision {revision}; this TinyCLIP knows {', '.join(known)}")

    def change(config: Config, found: str | None) -> None:
        back = found is not None and known.index(found) > known.index(revision)
        (command.downgrade if back else command.upgrade)(config, revision)

    await _migrate(url, change)


async def expect_head(url: str) -> None:
    """Check that the database is at the newest revision. Raises WrongRevision."""
    database = Database(url)
    try:
        async with database.engine.connect() as connection:
            refuse_unless_head(await current(connection))
    finally:
        await database.close()


async def current(connection: AsyncConnection) -> str | None:
    """Return the database's revision; None if it has none."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def head() -> str:
    """Return the newest revision."""
    found = _scripts().get_current_head()
    assert found is not None
    return found


def revisions() -> list[str]:
    """Return all revisions, oldest first."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


def fit(revision: str | None) -> Fit:
    """Compare a revision with this code; an unknown one comes from newer code."""
    if revision is None:
        return Fit.EMPTY
    if revision == head():
        return Fit.EXACT
    return Fit.OLDER if revision in revisions() else Fit.NEWER


def refuse_unless_head(revision: str | None) -> None:
    """Raises WrongRevision with the revision found, the one needed, and the command."""
    needed = head()
    messages = {
        Fit.EMPTY: f"the database has no tables yet, and this server needs revision {needed}: run tinyclip-server migrate",
        Fit.OLDER: f"the database is at revision {revision}, older than {needed} that this server needs: back it up, then run "
        "tinyclip-server migrate",
        Fit.NEWER: f"the database is at revision {revision}, which this server does not know; it needs {needed}. A newer "
        f"TinyCLIP wrote it: install that one, or take the database back with its tinyclip-server migrate --to {needed}",
    }
    message = messages.get(fit(revision))
    if message is not None:
        raise WrongRevision(message)


async def _migrate(url: str, change: Change) -> None:
    path = sqlite_file(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _file_lock(path):
        database = Database(url, statement_s=None)
        try:
            async with database.engine.connect() as connection:
                if path is not None:
                    await _disable_foreign_keys(connection)
                async with connection.begin():
                    await connection.run_sync(_change, change)
        finally:
            await database.close()


def _change(connection: Connection, change: Change) -> None:
    if connection.dialect.name == "postgresql":
        _lock(connection)
    found = MigrationContext.configure(connection).get_current_revision()
    if fit(found) is Fit.NEWER:
        refuse_unless_head(found)
    config = _config()
    config.attributes["connection"] = connection
    change(config, found)
    if connection.dialect.name == "sqlite":
        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if orphans:
            raise CannotMigrate(f"rows would refer to missing ones, first in {orphans[0][0]}; nothing was changed")


def _lock(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s'")
    try:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
    except DBAPIError as error:
        if "lock timeout" not in str(error.orig):
            raise
        raise CannotMigrate(
            f"another server has been migrating this database for {LOCK_SECONDS:g} s; is it still alive?"
        ) from error


async def _disable_foreign_keys(connection: AsyncConnection) -> None:
    """Disable SQLite's foreign keys: it changes a table by recreating it, and dropping the old one would delete dependent rows.

    The pragma has no effect inside a transaction, so it precedes it; `foreign_key_check` verifies the result.
    """
    raw = await connection.get_raw_connection()
    assert raw.driver_connection is not None
    await raw.driver_connection.execute("PRAGMA foreign_keys=OFF")


@contextlib.contextmanager
def _file_lock(path: Path | None) -> Iterator[None]:
    """Hold the counterpart of PostgreSQL's advisory lock for a SQLite file; the system releases it if the process dies."""
    if path is None:
        yield
        return
    try:
        with FileLock(f"{path}.migrate.lock", timeout=LOCK_SECONDS):
            yield
    except TimeoutError as error:  # filelock's Timeout is one
        raise CannotMigrate(f"another process has been migrating {path} for {LOCK_SECONDS:g} s; is it still alive?") from error


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _folder() -> Path:
    """Return the folder of migrations: in the package if installed from a wheel, at the repository's root in a checkout."""
    installed = Path(__file__).parents[1] / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "migrations"
