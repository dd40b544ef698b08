"""The PostgreSQL database of indexes with `store: pgvector`: its setting, its requirements, and the names of its tables.

An index is in four tables named by a random id, which is recorded in the artifacts store. So services can share a
database, and none drops a table that its own store does not name.
"""

import re
from collections.abc import Mapping
from typing import Any

VARIABLE = "TINYCLIP_INDEX_DATABASE_URL"
"""The environment variable with the database's URL, for servers, jobs and replicas. The URL is in no document."""
OLDEST = (0, 8)
"""The oldest supported pgvector: before it, a search with a filter ended after as many items as it is wide."""

INSPECT = """
SELECT current_setting('server_version') AS server, current_setting('server_encoding') AS encoding,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
    to_regtype('vector') IS NOT NULL AS visible, current_database() AS database, current_user AS role,
    current_schema() AS schema, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
"""
"""Returns one row, which `database_problem` checks."""


def database_problem(found: Mapping[str, Any]) -> str | None:
    """Return why a database cannot hold indexes, and what to do; None if it can."""
    database, major = found["database"], str(found["server"]).split(".")[0]
    if found["encoding"] != "UTF8":
        return f"database {database} has the encoding {found['encoding']}; make one with ENCODING 'UTF8'"
    if found["installed"] is None:
        package = f"install the package postgresql-{major}-pgvector (or pgvector's own) on its server, then "
        first = package if found["available"] is None else ""
        return f"database {database} has no extension vector; {first}let a superuser run CREATE EXTENSION vector in it"
    if _version(found["installed"]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        hint = f"install {oldest} or newer on its server, then ALTER EXTENSION vector UPDATE"
        return f"database {database} has pgvector {found['installed']}, older than {oldest}; {hint}"
    if not found["visible"]:
        return f"the type vector is in no schema of the search path; let {found['role']} see it: ALTER ROLE … SET search_path"
    if not found["may_create"]:
        schema = found["schema"] or "public"
        return f"{found['role']} may not make tables; GRANT CREATE ON SCHEMA {schema} TO {found['role']} in database {database}"
    return None


def plain_url(url: str) -> str:
    """Return a URL without the driver that SQLAlchemy's URLs may name: `postgresql+asyncpg://…`."""
    return re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url)


def table_name(id: str) -> str:
    """Return the name of the table of items. Raises `ValueError` for an invalid id, since names are not quoted in SQL."""
    if not re.fullmatch(r"[0-9a-f]{32}", id):
        raise ValueError(f"{id!r} is not the id of an index's tables")
    return f"tinyclip_{id}"


def state_name(id: str) -> str:
    """Return the name of the table with the index's state, one row."""
    return f"{table_name(id)}_state"


def pictures_name(id: str) -> str:
    """Return the name of the table that says where the images of items are."""
    return f"{table_name(id)}_pictures"


def shards_name(id: str) -> str:
    """Return the name of the table of the shards in which these images are."""
    return f"{table_name(id)}_shards"


def drop_statement(id: str) -> str:
    """Return the SQL that drops an index's tables."""
    return f"DROP TABLE IF EXISTS {table_name(id)}, {state_name(id)}, {pictures_name(id)}, {shards_name(id)}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
