"""Connections to the database of indexes, for jobs and for replicas.

Its URL comes from the environment alone. Nothing here repeats it: libpq's errors name host and user, never the password.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from tinyclip.index_database import LOOK, VARIABLE, complaint, plain_url

from tinyclip_workers.retrieval.reader import DatabaseAway

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]

JOB_SETTINGS = (
    "SET application_name = 'tinyclip index job'",
    "SET client_connection_check_interval = '5s'",  # a killed job's CREATE INDEX ends by itself
    "SET synchronous_commit = on",  # what is committed here is named by a document elsewhere
    "SET jit = off",
)
REPLICA_SETTINGS = (
    "SET application_name = 'tinyclip replica'",
    "SET jit = off",  # compiling takes longer than a search
    "SET hnsw.iterative_scan = relaxed_order",
    "SET plan_cache_mode = force_custom_plan",
    "SET statement_timeout = '30s'",  # nobody waits longer for a search
)
CONNECT_SECONDS = 10
RETRY_SECONDS = 600.0
"""How long a job goes on asking for a database that does not answer, as while it is started anew or moves to a standby."""
WAIT_SECONDS = 2.0
"""How long a search waits for a connection; other requests need its thread."""
MOST_CONNECTIONS = 8
"""Of one replica. Those that nobody needs for five minutes are closed."""


class NoDatabase(ValueError):
    """No database for indexes is configured here, or it cannot hold any."""


def configured() -> bool:
    return bool(os.environ.get(VARIABLE))


@contextmanager
def connected() -> Iterator[Connection]:
    """A job's connection, in autocommit. Raises NoDatabase, DatabaseAway."""
    parameters = _parameters()
    with _lost(), _patiently(parameters) as connection:
        look(connection)
        for setting in JOB_SETTINGS:
            connection.execute(setting)
        register_vector(connection)
        yield connection


def look(connection: Connection) -> None:
    """Raises NoDatabase for a database that cannot hold indexes."""
    found = connection.cursor(row_factory=dict_row).execute(LOOK).fetchone()
    assert found is not None
    problem = complaint(found)
    if problem is not None:
        raise NoDatabase(f"{VARIABLE}: {problem}")


class Pool:
    """Connections of one process, opened when they are needed. Its threads search at once."""

    def __init__(self) -> None:
        """Raises NoDatabase."""
        self._pool = ConnectionPool(
            kwargs={**_parameters(), "autocommit": True}, min_size=0, max_size=MOST_CONNECTIONS, timeout=WAIT_SECONDS,
            max_idle=300.0, configure=_prepared, check=ConnectionPool.check_connection, open=True, name="tinyclip-indexes",
            reconnect_timeout=0.0,
        )  # fmt: skip

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Raises DatabaseAway."""
        with _lost(), self._pool.connection() as connection:
            yield connection

    def close(self) -> None:
        self._pool.close()


_pool: Pool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> Pool:
    """Of this process. Raises NoDatabase."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool()
        return _pool


def _prepared(connection: Connection) -> None:
    for setting in REPLICA_SETTINGS:
        connection.execute(setting)
    register_vector(connection)


def _parameters() -> dict[str, Any]:
    url = os.environ.get(VARIABLE)
    if not url:
        way_out = "set it in the environment of tinyclip-server and, on a cluster, of every node's `ray start`"
        raise NoDatabase(f"the index is in PostgreSQL and {VARIABLE} is not set here; {way_out}")
    try:
        return {"connect_timeout": CONNECT_SECONDS, **conninfo_to_dict(plain_url(url))}
    except psycopg.Error:
        raise NoDatabase(f"{VARIABLE} is no URL as postgresql://USER:PASSWORD@HOST/NAME") from None  # it repeats the URL


def _patiently(parameters: dict[str, Any]) -> Connection:
    end, pause = time.monotonic() + RETRY_SECONDS, 0.5
    while True:
        try:
            return psycopg.connect(**parameters, autocommit=True)
        except psycopg.OperationalError as error:
            if time.monotonic() >= end:
                raise
            log.warning("the database of indexes does not answer, trying again: %s", str(error).strip())
            time.sleep(pause)
            pause = min(2 * pause, 8.0)


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:  # a pool that has none in time too
        raise DatabaseAway(f"the database of indexes ({VARIABLE}): {str(error).strip()}") from error
