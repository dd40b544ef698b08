"""A PostgreSQL that hangs: the way to it forwards nothing any more, and closes nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from tinyclip_server.database import postgresql
from tinyclip_server.database.engine import Database
from tinyclip_server.http import idempotency

from tests.server.documents import spec
from tests.server.service import Service, Start
from tests.tcp_relay import Relay, relay

LIMITS = {"CONNECT_SECONDS": 1.5, "POOL_SECONDS": 0.5, "PING_SECONDS": 0.3, "IDLE_SECONDS": 0.0}
STATEMENT_SECONDS = 1.0
CLOSE_SECONDS = 2.0
"""Time that SQLAlchemy takes to close a connection that hangs."""
SESSION_LIMITS = {
    "idle_in_transaction_session_timeout": "1min", "tcp_user_timeout": "60000",
    "tcp_keepalives_idle": "15", "tcp_keepalives_interval": "15", "tcp_keepalives_count": "3",
}  # fmt: skip
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

pytestmark = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


@pytest.fixture
async def way(database_url: str) -> AsyncIterator[Relay]:
    async with relay(urlsplit(database_url).port or 5432) as made:
        yield made


@pytest.fixture
async def service(start: Start, way: Relay, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A server with shorter time limits."""
    for name, seconds in LIMITS.items():
        monkeypatch.setattr(postgresql, name, seconds)
    monkeypatch.setitem(Database.__init__.__kwdefaults__, "statement_s", STATEMENT_SECONDS)
    host = urlsplit(database_url).netloc
    return await start(database_url=database_url.replace(host, f"{host.rpartition(':')[0]}:{way.port}"))


async def timed(service: Service, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    async with asyncio.timeout(15):
        response = await service.http.get(path)
    return response, time.monotonic() - began


def is_retryable(response: httpx.Response) -> bool:
    return (response.status_code, "retry-after" in response.headers, response.json()["retryable"]) == (503, True, True)


def test_the_limits_add_up_to_the_documented_time(dialect: str) -> None:
    opened = postgresql.POOL_SECONDS + postgresql.PING_SECONDS + CLOSE_SECONDS + postgresql.CONNECT_SECONDS
    answered = postgresql.STATEMENT_SECONDS + CLOSE_SECONDS + idempotency.RELEASE_SECONDS

    assert max(opened, answered) <= postgresql.ANSWER_SECONDS


async def test_requests_are_refused_in_time_and_answered_again_after_the_outage(service: Service, way: Relay) -> None:
    await service.submit()
    way.hang()

    first, first_s = await timed(service, "/v1/jobs")
    others = await asyncio.gather(*(timed(service, "/v1/jobs") for _ in range(10)))
    live, live_s = await timed(service, "/livez")
    ready, _ = await timed(service, "/readyz")

    assert is_retryable(first)
    assert first_s < sum(LIMITS.values()) + CLOSE_SECONDS
    assert all(is_retryable(response) for response, _ in others)
    assert sorted(seconds for _, seconds in others)[-2] < LIMITS["CONNECT_SECONDS"]  # one tries the database, the others do not
    assert (live.status_code, live_s < 0.1) == (200, True)
    assert "database cannot be reached" in ready.json()["detail"]

    way.recover()
    await service.tick()

    assert (await service.items("/v1/jobs"))[0]["state"] == "starting"


async def test_requests_whose_statements_and_commits_hang_are_refused_in_time(
    service: Service, way: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 60.0)  # no ping precedes the statement
    await service.submit()
    way.hang()
    response, seconds = await timed(service, "/v1/jobs")
    assert (is_retryable(response), seconds < STATEMENT_SECONDS + CLOSE_SECONDS + 1.0) == (True, True)
    way.recover()
    before = len(await service.items("/v1/jobs"))

    plan = service.planner.plan

    async def hang(*args: Any) -> Any:
        way.hang()
        return await plan(*args)

    monkeypatch.setattr(service.planner, "plan", hang)
    began = time.monotonic()
    refused = await service.http.post("/v1/jobs", json=spec(), headers={"Idempotency-Key": "one"})
    assert is_retryable(refused)
    assert time.monotonic() - began < STATEMENT_SECONDS + 2 * CLOSE_SECONDS + idempotency.RELEASE_SECONDS

    way.recover()
    assert len(await service.items("/v1/jobs")) in (before, before + 1)


async def test_a_round_of_the_scheduler_ends_and_the_next_one_succeeds(service: Service, way: Relay) -> None:
    await service.submit()
    way.hang()

    async with asyncio.timeout(10):
        with pytest.raises(OperationalError):
            await service.tick()

    way.recover(old=False)
    await service.tick()
    assert [job["state"] for job in await service.items("/v1/jobs")] == ["starting"]


async def test_other_requests_go_on_while_one_waits_for_a_lock_for_too_long(service: Service, database_url: str) -> None:
    job = await service.submit()
    with psycopg.connect(database_url) as other:
        other.execute("SELECT id FROM jobs FOR UPDATE")
        began = time.monotonic()
        waiting = asyncio.create_task(service.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 1}))
        while not waiting.done():
            assert (await service.http.get("/v1/jobs")).status_code == 200
            await asyncio.sleep(0.02)
        assert (is_retryable(await waiting), time.monotonic() - began < 3.0) == (True, True)
        assert other.execute(WAITING).fetchall() == []  # the statement was cancelled


async def test_a_session_that_the_database_ends_is_unavailable(service: Service, database_url: str) -> None:
    job = await service.submit()
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url, autocommit=True) as other:
        holder.execute("SELECT id FROM jobs FOR UPDATE")
        waiting = asyncio.create_task(service.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 1}))
        ended: list[Any] = []
        while not ended and not waiting.done():
            await asyncio.sleep(0.01)
            ended = other.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({WAITING}) AS waiting").fetchall()
        response = await waiting

    assert is_retryable(response)
    assert "terminating connection" not in response.text
    assert (await timed(service, "/v1/jobs"))[0].status_code == 200


async def test_a_database_without_a_free_connection_is_unavailable(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("CREATE ROLE tinyclip_without_connections LOGIN CONNECTION LIMIT 0")
        host = urlsplit(database_url).netloc.rpartition("@")[2]
        url = f"postgresql+asyncpg://tinyclip_without_connections@{host}{urlsplit(database_url).path}"
        database = Database(url)
        try:
            with pytest.raises(OperationalError, match="too many connections"):
                async with database.read() as session:
                    await session.execute(text("SELECT 1"))
        finally:
            await database.close()
            other.execute("DROP ROLE tinyclip_without_connections")


async def test_a_connection_ends_after_a_minute_without_a_sign_of_its_client(database_url: str) -> None:
    database = Database(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with database.read() as session:
        shown = [await session.scalar(text(f"SHOW {name}")) for name in SESSION_LIMITS]
    await database.close()

    assert shown == list(SESSION_LIMITS.values())
