"""The database of indexes whose `store` is `pgvector`, as far as the server asks it: whether it is fit, and to drop tables."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from tinyclip.artifacts.paths import index_table, index_tables
from tinyclip.index_database import INSPECT, VARIABLE, database_problem, drop_statement, plain_url

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.problems import InvalidInput, Unavailable

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
RETRY_AFTER = 10


class Away(Exception):
    """No usable answer, and why; without the URL."""


async def expect_fit(url: str) -> None:
    """Raises InvalidInput where no database is configured or it cannot hold indexes, Unavailable where it does not answer."""
    if not url:
        way_out = f"set {VARIABLE} for the server and on every node, or leave `store` away"
        raise _refused(f"needs a PostgreSQL with pgvector, and none is configured here; {way_out}", "index_store_not_configured")
    try:
        async with _connected(url) as connection:
            problem = database_problem(dict(await connection.fetchrow(INSPECT)))
    except Away as away:
        raise Unavailable(f"/store: the database of indexes does not answer: {away}", retry_after=RETRY_AFTER) from away
    if problem is not None:
        raise _refused(f"cannot be used: {problem}", "index_store_unfit")


async def version(url: str) -> str:
    """What the database is, in words. Raises Away, ValueError where it cannot hold indexes."""
    async with _connected(url) as connection:
        found = dict(await connection.fetchrow(INSPECT))
    problem = database_problem(found)
    if problem is not None:
        raise ValueError(problem)
    return f"postgresql {found['server']}, pgvector {found['installed']}"


async def drop_tables(url: str, store: AsyncArtifactsStore, index: str) -> str | None:
    """Drop all tables of an index. Why they are still there, if they are: then it can be asked again."""
    folder = index_tables(index)
    ids = [name for name in await store.list(folder) if re.fullmatch(r"[0-9a-f]{32}", name)]
    if not ids:
        return None
    if not url:
        way_out = f"set it again, or remove {store.uri(folder)} to leave them there"
        return f"its tables cannot be dropped: {VARIABLE} is not set any more; {way_out}"
    try:
        async with _connected(url) as connection:
            await connection.execute("SET lock_timeout = '2s'")  # who searches meanwhile waits as long
            for id in ids:
                await connection.execute(drop_statement(id))
                await store.remove(index_table(index, id))
    except Away as away:
        return f"its tables cannot be dropped yet: {away}"
    return None


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    """Raises Away."""
    try:
        connection = await asyncpg.connect(plain_url(url), timeout=CONNECT_SECONDS, command_timeout=ANSWER_SECONDS)
    except ValueError:
        raise Away(f"{VARIABLE} is no URL as postgresql://USER:PASSWORD@HOST/NAME") from None  # the error may repeat it
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Away(str(error) or type(error).__name__) from error
    try:
        yield connection
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Away(str(error) or type(error).__name__) from error
    finally:
        connection.terminate()


def _refused(message: str, code: str) -> InvalidInput:
    return InvalidInput.field("/store", "pgvector", message, code=code)
