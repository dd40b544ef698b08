"""Connections to PostgreSQL: each step has a time limit, and a database that is away is always an OperationalError.

A database behind a failed proxy or link may hang: it sends neither an answer nor a reset. Without time limits, a request would
wait for as long as TCP does. The limits are short enough for an answer to every request within ANSWER_SECONDS.
"""

import time
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection

POOL_SIZE, POOL_OVERFLOW = 10, 5
"""Connections that are kept open, and further ones that are closed after use: opening one takes longer than most requests."""
POOL_SECONDS = 5.0
"""The timeout of waiting for a connection while all are in use."""
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 12.0
"""The timeout of a statement of a server, waiting for locks included."""
IDLE_SECONDS = 1.0
"""A connection unused for longer is pinged before use; that takes a round trip, too many before every use."""
PING_SECONDS = 3.0
ANSWER_SECONDS = 20.0
"""Time within which a request is answered although the database hangs: closing a hung connection takes SQLAlchemy 2 s more."""
SUSPENDED_SECONDS = 60
"""Time after which PostgreSQL ends a session whose client is gone without a sign, or by default one idle in a transaction."""
LEAST_IDLE_SECONDS = 5.0
"""The shortest time limit of an idle transaction: a live server on a busy machine may pause for a second or two."""

UNAVAILABLE_CODES = ("08", "25P03", "53", "55P03", "57")
"""SQLSTATE codes, or their classes: the connection, a time limit, the server's resources, or an administrator ended it."""


def engine_options(statement_s: float | None) -> dict[str, Any]:
    """Return the options of an engine whose statements may take `statement_s` seconds; None: any time."""
    return {
        "poolclass": WatchedPool, "pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW, "pool_timeout": POOL_SECONDS,
        "connect_args": {"timeout": CONNECT_SECONDS, "command_timeout": statement_s},
    }  # fmt: skip


def install_limits(engine: AsyncEngine, idle_s: float) -> None:
    """Install the limits that are not options of an engine. PostgreSQL ends a session idle in a transaction for `idle_s`."""
    target: Engine = engine.sync_engine
    event.listen(target, "connect", partial(_limit_session, max(idle_s, LEAST_IDLE_SECONDS)))
    event.listen(target, "checkin", _note_use)
    event.listen(target, "checkout", _ping_if_idle)
    event.listen(target, "handle_error", _convert)


class WatchedPool(AsyncAdaptedQueuePool):
    """A pool that lets one caller at a time try while the database does not answer; all others fail at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._silent = self._tried = False

    def connect(self) -> PoolProxiedConnection:
        """Return a connection. Raises OperationalError if none can be opened, and SQLAlchemy's TimeoutError if all are in use."""
        trying = self._silent
        if trying and self._tried:
            raise OperationalError(None, None, ConnectionError("the database has not answered and is being tried again"))
        if trying:
            self._tried = True
        try:
            connection = super().connect()
        except TimeoutError as error:
            self._silent = True
            cause = ConnectionError(f"the database did not answer within {CONNECT_SECONDS:g} s")
            raise OperationalError(None, None, cause) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # raised while a connection is set up
            raise OperationalError(None, None, error) from error
        finally:
            if trying:
                self._tried = False
        self._silent = False
        return connection


def _limit_session(idle_s: float, connection: Any, record: ConnectionPoolEntry) -> None:
    """Let PostgreSQL end the session of a server that is suspended or cut off, which must not keep its locks.

    These are statements because PgBouncer refuses parameters that it does not know at the start of a session.
    """
    probe_s = SUSPENDED_SECONDS // 4
    limits = {
        "idle_in_transaction_session_timeout": idle_s * 1000, "tcp_user_timeout": SUSPENDED_SECONDS * 1000,
        "tcp_keepalives_idle": probe_s, "tcp_keepalives_interval": probe_s, "tcp_keepalives_count": 3,
    }  # fmt: skip
    statements = "; ".join(f"SET {name} = {int(value)}" for name, value in limits.items())
    connection.run_async(lambda driver: driver.execute(statements))


def _note_use(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_if_idle(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Ping a connection that was idle: if it is cut off or hangs, the pool reopens all of them.

    One that is cut off within IDLE_SECONDS of its last use fails like one that is cut off in use.
    """
    if time.monotonic() - record.info.get("used_at", float("inf")) <= IDLE_SECONDS:
        return
    try:
        connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=PING_SECONDS))
    except Exception as error:  # of the driver or the network: in each case the connection is of no use
        raise InvalidatePoolError from error


def _convert(context: ExceptionContext) -> None:
    """Raise OperationalError for a statement that the database, or the way to it, has not answered or cannot answer now.

    A statement that took too long is cancelled and its connection closed. Other connections stay: it may only wait for a lock.
    """
    error, statement = context.original_exception, context.statement
    if isinstance(error, OSError):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, not isinstance(error, TimeoutError)
        cause = ConnectionError(str(error) or "the database did not answer a statement in time")
        raise OperationalError(statement, None, cause, connection_invalidated=True)
    if str(getattr(error, "pgcode", None) or "").startswith(UNAVAILABLE_CODES):
        raise OperationalError(statement, None, error, connection_invalidated=context.is_disconnect)
