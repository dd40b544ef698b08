"""Fixtures of tests that need a PostgreSQL with pgvector: one server a run, one database a test."""

from collections.abc import Iterator

import pytest
from tinyclip.schemas.index_database import VARIABLE

from tests.postgres import database, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def index_database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database, configured as that of indexes."""
    with database(postgres) as url:
        monkeypatch.setenv(VARIABLE, url)
        from tinyclip_workers.retrieval.postgres import database as ours

        monkeypatch.setattr(ours, "_pool", None)
        yield url
        if ours._pool is not None:
            ours._pool.close()
