"""Databases at every revision, with rows, made once by going through the revisions and copied for each test."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import revisions, upgrade
from tinyclip_server.settings import Settings

from tests.server.conftest import postgres_database
from tests.server.database.rows import Rows, fill


class FilledDatabase(NamedTuple):
    """A database with a row in every table."""

    url: str
    rows: Rows


Filled = dict[str, FilledDatabase]
"""By revision."""


@pytest.fixture(scope="session")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """SQLite files at all revisions, to be copied."""
    folder = tmp_path_factory.mktemp("revisions")
    return asyncio.run(_go_through(f"sqlite:///{folder / 'any.db'}", lambda url, name: copy_file(url, folder / name)))


@pytest.fixture(scope="session")
def filled_postgres(postgres_server: str) -> Iterator[Filled]:
    """Databases of PostgreSQL at all revisions, to be copied."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(postgres_database(postgres_server))
        copy = partial(postgres_database, postgres_server)
        yield asyncio.run(_go_through(first, lambda url, _: stack.enter_context(copy(template=url))))


@pytest.fixture
def filled_database(request: pytest.FixtureRequest, dialect: str, revision: str, tmp_path: Path) -> Iterator[FilledDatabase]:
    """A database at a revision, for one test."""
    if dialect == "sqlite":
        found = request.getfixturevalue("filled_sqlite")[revision]
        yield FilledDatabase(copy_file(found.url, tmp_path / "filled.db"), found.rows)
        return
    found = request.getfixturevalue("filled_postgres")[revision]
    with postgres_database(request.getfixturevalue("postgres_server"), template=found.url) as url:
        yield FilledDatabase(url, found.rows)


def copy_file(url: str, path: Path) -> str:
    shutil.copy(url.removeprefix("sqlite:///"), path)
    return f"sqlite:///{path}"


async def _go_through(url: str, copy: Callable[[str, str], str]) -> Filled:
    found: Filled = {}
    for revision in revisions():
        await upgrade(Settings(database_url=url).async_database_url, revision)
        copied = copy(url, revision)
        database = Database(Settings(database_url=copied).async_database_url)
        found[revision] = FilledDatabase(copied, await fill(database))
        await database.close()
    return found
