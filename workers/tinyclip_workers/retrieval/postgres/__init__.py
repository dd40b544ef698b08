"""Indexes whose vectors live in PostgreSQL, in tables with pgvector's types.

The libraries for it are an extra: importing this package raises MissingExtra where they are not installed.
"""

from tinyclip.errors import MissingExtra

try:
    import pgvector as _pgvector  # noqa: F401
    import psycopg as _psycopg  # noqa: F401
    import psycopg_pool as _pool  # noqa: F401
except ImportError as error:
    raise MissingExtra("pgvector", error.name or "psycopg") from error
