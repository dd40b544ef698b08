"""The rows that revision 0016 migrates: points are numbered, and attempts get the causes that events have."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.settings import Settings

from tests.server.database.rows import Rows, value_for
from tests.server.service import on_both_databases


def put(connection: Connection, rows: Rows) -> None:
    """Insert rows; columns that are not given have any value."""
    found = sa.MetaData()
    found.reflect(connection, only=list(rows))
    for name, given in rows.items():
        table = found.tables[name]
        connection.execute(table.insert(), [{c.name: value_for(c) for c in table.columns} | row for row in given])


def point(job: str, name: str, stage: int, step: int) -> dict[str, Any]:
    return {"job_id": job, "name": name, "stage": stage, "step": step, "value": float(step)}


def attempt(job: str, number: int, outcome: str | None) -> dict[str, Any]:
    return {"job_id": job, "number": number, "outcome": outcome}


def event(seq: int, type: str, number: int | None, message: str) -> dict[str, Any]:
    return {"job_id": "job_1", "seq": seq, "type": type, "attempt": number, "message": message}


async def rows_of(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(query))]


async def upgraded(url: str, rows: Rows) -> Database:
    """Return a database that is upgraded with the rows in it."""
    await upgrade(url, "0015")
    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.run_sync(put, rows)
    await database.engine.dispose()  # asyncpg keeps plans of statements on tables that have changed
    await upgrade(url)
    return database


@on_both_databases
async def test_points_are_numbered_by_stage_step_and_name(empty_database_url: str) -> None:
    points = [
        point("job_1", "lr", 0, 1), point("job_1", "loss", 0, 1), point("job_1", "loss", 1, 1), point("job_1", "loss", 0, 10),
        point("job_1", "loss", 0, 9), point("job_2", "loss", 3, 3),
    ]  # fmt: skip
    jobs = [{"id": f"job_{number}"} for number in (1, 2, 3)]

    database = await upgraded(
        Settings(database_url=empty_database_url).async_database_url, {"jobs": jobs, "metric_points": points}
    )

    found = await rows_of(database, "SELECT job_id, seq, name, stage, step, value FROM metric_points ORDER BY job_id, seq")
    last = await rows_of(database, "SELECT id, last_metric FROM jobs ORDER BY id")
    await database.close()
    assert found == [
        ("job_1", 1, "loss", 0, 1, 1.0), ("job_1", 2, "lr", 0, 1, 1.0), ("job_1", 3, "loss", 0, 9, 9.0),
        ("job_1", 4, "loss", 0, 10, 10.0), ("job_1", 5, "loss", 1, 1, 1.0), ("job_2", 1, "loss", 3, 3, 3.0),
    ]  # fmt: skip
    assert last == [("job_1", 5), ("job_2", 1), ("job_3", 0)]


@on_both_databases
async def test_ended_attempts_have_the_cause_that_their_events_name(empty_database_url: str) -> None:
    attempts = [
        attempt("job_1", 1, "failed"), attempt("job_1", 2, "stopped"), attempt("job_1", 3, "interrupted"),
        attempt("job_1", 4, "lost"), attempt("job_1", 5, "succeeded"), attempt("job_1", 6, None), attempt("job_1", 7, "failed"),
    ]  # fmt: skip
    events = [
        event(1, "attempt.failed", 1, "out of memory"), event(2, "job.starting", 2, "attempt 2 continues"),
        event(3, "job.paused", 2, "paused"), event(4, "job.queued", 2, "resumed"),
        event(5, "attempt.interrupted", 3, "its cluster was stopped"), event(6, "job.queued", 3, "the service was stopped"),
        event(7, "attempt.lost", 4, "attempt 4 is lost"), event(8, "job.failed", 5, "another"),
    ]  # fmt: skip
    rows = {"jobs": [{"id": "job_1"}], "attempts": attempts, "events": events}

    database = await upgraded(Settings(database_url=empty_database_url).async_database_url, rows)

    found = dict(await rows_of(database, "SELECT number, cause FROM attempts ORDER BY number"))
    await database.close()
    assert found == {
        1: "out of memory", 2: "the job was paused", 3: "its cluster was stopped", 4: "attempt 4 is lost", 5: "", 6: "", 7: "",
    }  # fmt: skip
