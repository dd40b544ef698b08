"""The database: one engine, read and write transactions, and the types both databases share."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, MetaData, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

POOL_SIZE, POOL_OVERFLOW = 10, 5
"""Connections that are kept open, and further ones that are closed after use: opening one takes longer than most requests."""
IDLE_SECONDS = 1.0
"""A connection unused for longer is pinged before use; that takes three round trips, too many before every use."""
SUSPENDED_SECONDS = 60
"""Time after which PostgreSQL ends a session that is idle in a transaction: a suspended server must not keep its locks."""
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=15000")
"""FULL: the log is flushed to the disk with every commit, so a power failure loses no acknowledged write."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite does not store the zone, so it is added to results."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


JsonColumn = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger(), datetime: UtcDateTime(), dict[str, Any]: JsonColumn, list[Any]: JsonColumn}


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Database:
    """Opens sessions. Each is one transaction, which commits at the end of its block and rolls back on an exception."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {}
        if not url.startswith("sqlite"):
            limits = {"idle_in_transaction_session_timeout": f"{SUSPENDED_SECONDS * 1000}"}
            options = {"pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW, "connect_args": {"server_settings": limits}}
        self.engine: AsyncEngine = create_async_engine(url, **options)
        if self.engine.dialect.name == "sqlite":
            _make_sqlite_transactional(self.engine)
        else:
            _ping_idle_connections(self.engine)
        self._readers = async_sessionmaker(self.engine, expire_on_commit=False)
        # SQLite cannot turn a read transaction into a write one while another writes: take the write lock at once.
        self._writers = async_sessionmaker(
            self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE"), expire_on_commit=False
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a read-only transaction with a consistent view."""
        async with self._readers() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction. It begins with the first statement, so slow work before that holds no lock."""
        async with self._writers() as session:
            yield session
            await session.commit()

    async def close(self) -> None:
        await self.engine.dispose()


def _ping_idle_connections(engine: AsyncEngine) -> None:
    """Ping a connection that was idle: if a restart of the database has cut it off, the pool reopens all of them.

    One that is cut off within IDLE_SECONDS of its last use fails like one that is cut off in use.
    """
    dialect = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "checkin")
    def _note(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def _ping(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if time.monotonic() - record.info.get("used_at", float("inf")) <= IDLE_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def _make_sqlite_transactional(engine: AsyncEngine) -> None:
    """Let SQLAlchemy, not the driver, begin transactions."""

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
