"""The rows that revision 0003 migrates."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, bindparam, text
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.settings import Settings

from tests.server.service import on_both_databases

JSONS = ("labels", "spec", "resolved_spec", "progress")


@on_both_databases
async def test_a_job_of_the_first_revision_is_kept_with_its_ended_attempt_released(empty_database_url: str) -> None:
    url = Settings(database_url=empty_database_url).async_database_url
    await upgrade(url, "0001")
    database = Database(url)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = {
        "id": "job_1", "project": "default", "name": "n", "labels": "{}", "priority": 0, "spec": "{}", "resolved_spec": "{}",
        "state": "failed", "version": 1, "revision": 1, "last_event": 0, "last_log": 0, "attempt": 1, "failures": 1,
        "progress": "{}", "model_name": "n", "control": "", "lease_owner": "", "lease_token": 1, "created_at": at,
    }
    attempt = {
        "job_id": "job_1", "number": 1, "ray_submission_id": "tc-job_1-a1", "submitted": True, "outcome": "failed",
        "next_segment": 1, "created_at": at, "finished_at": at,
    }
    async with database.engine.begin() as connection:
        for table, row in (("jobs", job), ("attempts", attempt)):
            types = [bindparam(name, type_=DateTime(timezone=True)) for name in row if name.endswith("_at")]
            places = ", ".join(f"CAST(:{name} AS JSONB)" if name in JSONS and "postgresql" in url else f":{name}" for name in row)
            await connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})").bindparams(*types), row)

    await upgrade(url)

    async with database.read() as session:
        found = await session.get_one(JobRow, "job_1")
        ended = await session.get_one(AttemptRow, ("job_1", 1))
    await database.close()
    assert (found.state, found.adopts, found.deleted_at) == ("failed", None, None)
    assert ended.released_at == ended.finished_at == at
