"""The PostgreSQL of indexes whose `store` is `pgvector`: the server checks it and drops tables of deleted indexes."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from tinyclip.artifacts.paths import index_table, index_tables
from tinyclip.index_database import INSPECT, VARIABLE, database_problem, drop_statement, plain_url, state_name, table_name

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.problems import InvalidInput, Unavailable

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
LOCK_SECONDS = 2.0
"""How long a deletion waits for the lock of a table; concurrent searches wait as long."""
RETRY_AFTER = 10


class DatabaseUnavailable(Exception):
    """The database gave no usable answer; the message has the reason, and not the URL."""


async def expect_fit(url: str) -> None:
    """Raise InvalidInput unless the database is configured and can hold indexes, Unavailable if it does not answer."""
    if not url:
        remedy = f"set {VARIABLE} for the server and on every node, or omit `store`"
        raise _refused(f"needs a PostgreSQL with pgvector, and none is configured; {remedy}", "index_store_not_configured")
    try:
        async with _connected(url) as connection:
            problem = database_problem(dict(await connection.fetchrow(INSPECT)))
    except DatabaseUnavailable as error:
        raise Unavailable(f"/store: the database of indexes does not answer: {error}", retry_after=RETRY_AFTER) from error
    if problem is not None:
        raise _refused(f"cannot be used: {problem}", "index_store_unfit")


async def version(url: str) -> str:
    """Return the versions of PostgreSQL and pgvector. Raises DatabaseUnavailable, and ValueError if it cannot hold indexes."""
    async with _connected(url) as connection:
        found = dict(await connection.fetchrow(INSPECT))
    problem = database_problem(found)
    if problem is not None:
        raise ValueError(problem)
    return f"postgresql {found['server']}, pgvector {found['installed']}"


async def drop_tables(url: str, store: AsyncArtifactsStore, index: str) -> str | None:
    """Drop all tables of an index. Return None, or why tables remain, after which it can be repeated."""
    folder = index_tables(index)
    ids = [name for name in await store.list(folder) if re.fullmatch(r"[0-9a-f]{32}", name)]
    if not ids:
        return None
    if not url:
        remedy = f"set it again, or remove {store.uri(folder)} to keep them"
        return f"its tables cannot be dropped: {VARIABLE} is no longer set; {remedy}"
    try:
        async with _connected(url) as connection:
            await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS:g}s'")
            for id in ids:
                await connection.execute(drop_statement(id))
                await store.remove(index_table(index, id))
    except DatabaseUnavailable as error:
        return f"its tables cannot be dropped yet: {error}"
    return None


async def read_states(url: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the JSON of the generation in the tables with these ids, for those that exist. Raises DatabaseUnavailable."""
    states = {}
    async with _connected(url) as connection:
        for id in ids:
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table_name(id)):
                states[id] = str(await connection.fetchval(f"SELECT generation FROM {state_name(id)}"))
    return states


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    """Connect to the database. Raises DatabaseUnavailable."""
    try:
        connection = await asyncpg.connect(plain_url(url), timeout=CONNECT_SECONDS, command_timeout=ANSWER_SECONDS)
    except ValueError:
        # Without the cause, which may repeat the password.
        raise DatabaseUnavailable(f"{VARIABLE} is not a URL like postgresql://USER:PASSWORD@HOST/NAME") from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(str(error) or type(error).__name__) from error
    try:
        yield connection
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(str(error) or type(error).__name__) from error
    finally:
        connection.terminate()


def _refused(message: str, code: str) -> InvalidInput:
    return InvalidInput.field("/store", "pgvector", message, code=code)
