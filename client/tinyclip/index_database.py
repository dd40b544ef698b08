"""The PostgreSQL database of indexes whose `store` is `pgvector`, as far as both the server and the workers have to know it.

An index's vectors are in two tables that carry its random id; the artifacts store says which id an index has. So services may
share a database, and nobody drops a table that is not named in its own store.
"""

import re
from collections.abc import Mapping
from typing import Any

VARIABLE = "TINYCLIP_INDEX_DATABASE_URL"
"""Where servers, jobs and replicas find the database's URL: in their environment, never in a document."""
OLDEST = (0, 8)
"""Of pgvector: before, a search with a filter ended when it had met as many items as it is wide."""

LOOK = """
SELECT current_setting('server_version') AS server, current_setting('server_encoding') AS encoding,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
    to_regtype('vector') IS NOT NULL AS visible, current_database() AS database, current_user AS role,
    current_schema() AS schema, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
"""
"""One row; `complaint` judges it."""


def complaint(found: Mapping[str, Any]) -> str | None:
    """What keeps a database from holding indexes, and the way out; null: nothing."""
    database, major = found["database"], str(found["server"]).split(".")[0]
    if found["encoding"] != "UTF8":
        return f"database {database} has the encoding {found['encoding']}; make one with ENCODING 'UTF8'"
    if found["installed"] is None:
        package = f"install the package postgresql-{major}-pgvector (or pgvector's own) on its server, then "
        first = package if found["available"] is None else ""
        return f"database {database} has no extension vector; {first}let a superuser run CREATE EXTENSION vector in it"
    if _version(found["installed"]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        way_out = f"install {oldest} or newer on its server, then ALTER EXTENSION vector UPDATE"
        return f"database {database} has pgvector {found['installed']}, older than {oldest}; {way_out}"
    if not found["visible"]:
        return f"the type vector is in no schema of the search path; let {found['role']} see it: ALTER ROLE … SET search_path"
    if not found["may_create"]:
        schema = found["schema"] or "public"
        return f"{found['role']} may not make tables; GRANT CREATE ON SCHEMA {schema} TO {found['role']} in database {database}"
    return None


def plain_url(url: str) -> str:
    """Without a driver's name, which SQLAlchemy's URLs may have: `postgresql+asyncpg://…`."""
    return re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url)


def table_name(id: str) -> str:
    """Of the items. Raises ValueError for what is no id: names go into SQL as they are."""
    if not re.fullmatch(r"[0-9a-f]{32}", id):
        raise ValueError(f"{id!r} is no id of an index's tables")
    return f"tinyclip_{id}"


def state_name(id: str) -> str:
    """Of the one row that says what the items are."""
    return f"{table_name(id)}_state"


def drop_statement(id: str) -> str:
    return f"DROP TABLE IF EXISTS {table_name(id)}, {state_name(id)}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
