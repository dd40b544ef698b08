"""Indexes whose vectors are in PostgreSQL, in tables with pgvector's types.

The required libraries are an extra: importing this package raises MissingExtra if they are not installed.

- `database`: connections of jobs and replicas. `table`: the tables of an index, `pictures` those of places of images.
  `conditions`: filters as SQL.
- `building`, `updating`: fill new tables, change them in a transaction. `graph`: create pgvector's HNSW index.
- `reader`, `queries`: search through the graph or exactly.
"""

from tinyclip.errors import MissingExtra

try:
    import pgvector as _pgvector  # noqa: F401
    import psycopg as _psycopg  # noqa: F401
    import psycopg_pool as _pool  # noqa: F401
except ImportError as error:
    raise MissingExtra("pgvector", error.name or "psycopg") from error
