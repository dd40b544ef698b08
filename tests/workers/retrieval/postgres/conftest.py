"""The database of indexes for these tests: one for each module, emptied after each test."""

from collections.abc import Iterator

import pytest
from tinyclip.index_database import VARIABLE

from tests.postgres import connected_to, database, tables


@pytest.fixture(scope="module")
def module_database(postgres: str) -> Iterator[str]:
    with database(postgres) as url:
        yield url


@pytest.fixture
def index_database(module_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty database, which is the configured one in this process."""
    from tinyclip_workers.retrieval.postgres import database as connections

    monkeypatch.setenv(VARIABLE, module_database)
    monkeypatch.setattr(connections, "_pool", None)
    yield module_database
    if connections._pool is not None:
        connections._pool.close()
    with connected_to(module_database) as connection:
        others = "datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        for table in tables(module_database):
            connection.execute(f"DROP TABLE {table}")
