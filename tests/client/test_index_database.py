"""What is said of a database that cannot hold indexes, and of names that go into SQL."""

from typing import Any

import pytest
from tinyclip.index_database import complaint, drop_statement, plain_url

FIT: dict[str, Any] = {
    "server": "17.2 (Debian 17.2-1)", "encoding": "UTF8", "installed": "0.8.0", "available": "0.8.0", "visible": True,
    "database": "indexes", "role": "me", "schema": "public", "may_create": True,
}  # fmt: skip


def test_one_that_is_fit() -> None:
    assert complaint(FIT) is None
    assert complaint({**FIT, "installed": "0.10.1"}) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"installed": None, "available": None}, "install the package postgresql-17-pgvector"),
        ({"installed": None}, "database indexes has no extension vector; let a superuser run CREATE EXTENSION vector in it"),
        ({"installed": "0.7.4"}, "has pgvector 0.7.4, older than 0.8; install 0.8 or newer on its server, then ALTER EXTENSION"),
        ({"visible": False}, "the type vector is in no schema of the search path"),
        ({"may_create": False}, "me may not make tables; GRANT CREATE ON SCHEMA public TO me in database indexes"),
        ({"encoding": "SQL_ASCII"}, "has the encoding SQL_ASCII; make one with ENCODING 'UTF8'"),
    ],
)
def test_one_that_is_not(changes: dict[str, Any], says: str) -> None:
    assert says in (complaint({**FIT, **changes}) or "")


def test_urls_lose_the_name_of_a_driver() -> None:
    assert plain_url("postgresql+asyncpg://u:p@h/x") == plain_url("postgresql://u:p@h/x") == "postgresql://u:p@h/x"


@pytest.mark.parametrize("id", ["", "x" * 32, "0" * 31, "0" * 32 + "; DROP TABLE jobs", "0" * 32 + "\n"])
def test_only_ids_become_names(id: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        drop_statement(id)
