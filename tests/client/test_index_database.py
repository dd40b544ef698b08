"""Requirements of the database of indexes, and names that are used in SQL."""

from typing import Any

import pytest
from tinyclip.index_database import database_problem, drop_statement, plain_url

SUITABLE: dict[str, Any] = {
    "server": "17.2 (Debian 17.2-1)", "encoding": "UTF8", "installed": "0.8.0", "available": "0.8.0", "visible": True,
    "database": "indexes", "role": "me", "schema": "public", "may_create": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"installed": None, "available": None}, "install the package postgresql-17-pgvector"),
        ({"installed": None}, "database indexes has no extension vector; let a superuser run CREATE EXTENSION vector in it"),
        ({"installed": "0.7.4"}, "has pgvector 0.7.4, older than 0.8; install 0.8 or newer on its server, then ALTER EXTENSION"),
        ({"visible": False}, "the type vector is in no schema of the search path"),
        ({"may_create": False}, "me may not make tables; GRANT CREATE ON SCHEMA public TO me in database indexes"),
        ({"encoding": "SQL_ASCII"}, "has the encoding SQL_ASCII; make one with ENCODING 'UTF8'"),
    ],
)
def test_an_unsuitable_database_is_explained(changes: dict[str, Any], message: str) -> None:
    assert message in (database_problem({**SUITABLE, **changes}) or "")


@pytest.mark.parametrize("installed", ["0.8.0", "0.10.1"])
def test_a_suitable_database_has_no_problem(installed: str) -> None:
    assert database_problem({**SUITABLE, "installed": installed}) is None


def test_urls_lose_the_name_of_a_driver() -> None:
    assert plain_url("postgresql+asyncpg://u:p@h/x") == plain_url("postgresql://u:p@h/x") == "postgresql://u:p@h/x"


@pytest.mark.parametrize("id", ["", "x" * 32, "0" * 31, "0" * 32 + "; DROP TABLE jobs", "0" * 32 + "\n"])
def test_only_ids_become_names(id: str) -> None:
    with pytest.raises(ValueError, match="is not the id"):
        drop_statement(id)
