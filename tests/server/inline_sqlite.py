"""SQLite for SQLAlchemy's asyncio without a thread: a statement is executed when it is awaited.

aiosqlite passes every call to a thread, which takes most of the time of a small statement. A test in which nothing else runs
meanwhile can execute thousands of examples this way.
"""

import sqlite3
from collections.abc import Callable
from typing import Any


class InlineConnection:
    """The part of aiosqlite's connection that SQLAlchemy's dialect uses."""

    def __init__(self, path: str) -> None:
        self._conn = self._connection = sqlite3.connect(path, check_same_thread=False)
        self._tx = self

    def put_nowait(self, job: tuple[Any, Callable[[], Any]]) -> None:
        """Run a job of aiosqlite's queue, through which the dialect sets the isolation level."""
        future, work = job
        future.set_result(work())

    @property
    def isolation_level(self) -> str | None:
        return self._conn.isolation_level

    async def create_function(self, *args: Any, **kwargs: Any) -> None:
        self._conn.create_function(*args, **kwargs)

    def cursor(self) -> "InlineCursor":
        return InlineCursor(self._conn.cursor())

    async def commit(self) -> None:
        self._conn.commit()

    async def rollback(self) -> None:
        self._conn.rollback()

    async def close(self) -> None:
        self._conn.close()

    def stop(self) -> None:
        self._conn.close()


class InlineCursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    async def __aenter__(self) -> "InlineCursor":
        return self

    async def execute(self, statement: str, parameters: Any = ()) -> None:
        self._cursor.execute(statement, parameters)

    async def executemany(self, statement: str, parameters: Any) -> None:
        self._cursor.executemany(statement, parameters)

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def close(self) -> None:
        self._cursor.close()

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid
