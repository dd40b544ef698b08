"""Rows for a database at any revision, whatever its tables are."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from tinyclip_server.database.engine import Database

VERSION = "alembic_version"
Rows = dict[str, list[dict[str, Any]]]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def fill(database: Database) -> Rows:
    async with database.engine.begin() as connection:
        return await connection.run_sync(put_a_row_everywhere)


def value_for(column: sa.Column[Any]) -> Any:
    samples = {dict: {"a": [1]}, int: 7, float: 0.5, bool: True, str: f"some {column.name}", datetime: MOMENT}
    kind = column.type
    return samples[dict if isinstance(kind, sa.JSON) else kind.python_type]


def put_a_row_everywhere(connection: Connection) -> Rows:
    """Insert a row into every table; foreign keys refer to the row of the other table."""
    found = sa.MetaData()
    found.reflect(connection)
    put: Rows = {}
    for table in found.sorted_tables:
        if table.name == VERSION:
            continue
        row = {column.name: value_for(column) for column in table.columns}
        for key in table.foreign_keys:
            row[key.parent.name] = put[key.column.table.name][0][key.column.name]
        connection.execute(table.insert(), row)
        put[table.name] = [row]
    return read(connection)


def read(connection: Connection) -> Rows:
    """Return the rows of all tables, without the types of their columns: reflecting these takes most of a test's time."""
    tables = [name for name in sa.inspect(connection).get_table_names() if name != VERSION]
    return {name: [dict(row) for row in connection.execute(sa.text(f'SELECT * FROM "{name}"')).mappings()] for name in tables}
