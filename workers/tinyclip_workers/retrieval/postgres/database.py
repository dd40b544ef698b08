"""Connections to the database of indexes, for jobs and for replicas.

Its URL comes only from the environment. No error repeats it: libpq's errors name host and user, never the password.
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
from tinyclip.index_database import INSPECT, VARIABLE, database_problem, plain_url

from tinyclip_workers.retrieval.reader import DatabaseUnavailable

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]

JOB_SETTINGS = (
    "SET application_name = 'tinyclip index job'",
    "SET client_connection_check_interval = '5s'",  # ends the CREATE INDEX of a killed job
    "SET synchronous_commit = on",  # documents in the artifacts store refer to what is committed here
    "SET jit = off",
)
REPLICA_SETTINGS = (
    "SET application_name = 'tinyclip replica'",
    "SET jit = off",  # compiling takes longer than a search
    "SET hnsw.iterative_scan = relaxed_order",
    "SET plan_cache_mode = force_custom_plan",
    "SET statement_timeout = '30s'",  # requests time out before that
)
CONNECT_SECONDS = 10
RETRY_SECONDS = 600.0
"""How long a job retries to connect, for example while the database restarts or fails over to a standby."""
POOL_TIMEOUT_SECONDS = 2.0
"""How long a search waits for a connection; other requests need its thread."""
MAX_CONNECTIONS = 8
"""Connections of one replica; they are closed after five idle minutes."""


class DatabaseNotUsable(ValueError):
    """No database for indexes is configured, or it cannot hold indexes."""


@contextmanager
def job_connection() -> Iterator[Connection]:
    """Open a job's connection, in autocommit. Raises DatabaseNotUsable, DatabaseUnavailable."""
    parameters = _connection_parameters()
    with _operational_errors(), _connect_with_retries(parameters) as connection:
        facts = connection.cursor(row_factory=dict_row).execute(INSPECT).fetchone()
        assert facts is not None
        problem = database_problem(facts)
        if problem is not None:
            raise DatabaseNotUsable(f"{VARIABLE}: {problem}")
        for setting in JOB_SETTINGS:
            connection.execute(setting)
        register_vector(connection)
        yield connection


class ReplicaPool:
    """The connections of one replica, opened on demand, for its searching threads."""

    def __init__(self) -> None:
        """Raises DatabaseNotUsable."""
        self._pool = ConnectionPool(
            kwargs={**_connection_parameters(), "autocommit": True}, min_size=0, max_size=MAX_CONNECTIONS,
            timeout=POOL_TIMEOUT_SECONDS, max_idle=300.0, configure=_configure, check=ConnectionPool.check_connection,
            open=True, name="tinyclip-indexes", reconnect_timeout=0.0,
        )  # fmt: skip

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Raises DatabaseUnavailable."""
        with _operational_errors(), self._pool.connection() as connection:
            yield connection

    def close(self) -> None:
        self._pool.close()


_pool: ReplicaPool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> ReplicaPool:
    """Return the pool of this process. Raises DatabaseNotUsable."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ReplicaPool()
        return _pool


def _configure(connection: Connection) -> None:
    for setting in REPLICA_SETTINGS:
        connection.execute(setting)
    register_vector(connection)


def _connection_parameters() -> dict[str, Any]:
    url = os.environ.get(VARIABLE)
    if not url:
        hint = "set it in the environment of tinyclip-server and, on a cluster, of every node's `ray start`"
        raise DatabaseNotUsable(f"the index is in PostgreSQL and {VARIABLE} is not set here; {hint}")
    try:
        return {"connect_timeout": CONNECT_SECONDS, **conninfo_to_dict(plain_url(url))}
    except psycopg.Error:  # its message repeats the URL
        raise DatabaseNotUsable(f"{VARIABLE} is not a URL of the form postgresql://USER:PASSWORD@HOST/NAME") from None


def _connect_with_retries(parameters: dict[str, Any]) -> Connection:
    end, pause = time.monotonic() + RETRY_SECONDS, 0.5
    while True:
        try:
            return psycopg.connect(**parameters, autocommit=True)
        except psycopg.OperationalError as error:
            if time.monotonic() >= end:
                raise
            log.warning("cannot connect to the database of indexes, retrying: %s", str(error).strip())
            time.sleep(pause)
            pause = min(2 * pause, 8.0)


@contextmanager
def _operational_errors() -> Iterator[None]:
    """Raise DatabaseUnavailable for lost and refused connections, and when the pool has none in time."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database of indexes ({VARIABLE}): {str(error).strip()}") from error
