"""The database: one engine, read and write transactions, and the types both databases share."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import JSON, BigInteger, DateTime, Dialect, MetaData, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from tinyclip_server.database.postgresql import STATEMENT_SECONDS, SUSPENDED_SECONDS, engine_options, install_limits

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

    def __init__(
        self, url: str, *, statement_s: float | None = STATEMENT_SECONDS, idle_s: float = SUSPENDED_SECONDS
    ) -> None:
        """Create the engine.

        On PostgreSQL a statement may take `statement_s` seconds (None: any time), and a transaction may be idle for `idle_s`.
        """
        options = {} if url.startswith("sqlite") else engine_options(statement_s)
        self.engine: AsyncEngine = create_async_engine(url, json_serializer=_json, **options)
        if self.engine.dialect.name == "sqlite":
            _make_sqlite_transactional(self.engine)
            _let_sqlite_lower_all_letters(self.engine)
        else:
            install_limits(self.engine, idle_s)
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


def _json(document: Any) -> str:
    """Return a document as JSON, in a quarter of the time of `json.dumps`: statements are made on the event loop."""
    try:
        return to_json(document, inf_nan_mode="constants").decode()
    except PydanticSerializationError:
        return json.dumps(document)  # it has unpaired surrogates, which are no UTF-8


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


def _let_sqlite_lower_all_letters(engine: AsyncEngine) -> None:
    """Give SQLite a `lower` for all letters, as PostgreSQL has; its own knows those of ASCII."""

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(value: Any) -> str | None:
    return None if value is None else str(value).lower()
