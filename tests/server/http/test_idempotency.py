"""`Idempotency-Key`: a repeated request returns the first response without a second effect."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import IdempotencyRow

from tests.server.documents import spec
from tests.server.service import Service, Start, eventually, on_both_databases

KEY = {"Idempotency-Key": "abc"}


@on_both_databases
async def test_a_repeated_request_returns_the_first_response(service: Service) -> None:
    first = await service.http.post("/v1/jobs", json=spec(), headers=KEY)
    repeated = await service.http.post("/v1/jobs", json=spec(), headers=KEY)

    assert (first.status_code, repeated.status_code) == (201, 201)
    assert repeated.content == first.content
    assert repeated.headers["etag"] == first.headers["etag"]
    assert len(await service.items("/v1/jobs")) == 1


async def test_the_same_document_in_another_order_is_the_same_request(service: Service) -> None:
    first = await service.http.post("/v1/jobs", json=spec(), headers=KEY)
    repeated = await service.http.post("/v1/jobs", json=dict(reversed(spec().items())), headers=KEY)

    assert repeated.json()["id"] == first.json()["id"]


async def test_another_body_under_the_key_is_refused(service: Service) -> None:
    await service.http.post("/v1/jobs", json=spec(), headers=KEY)

    response = await service.http.post("/v1/jobs", json=spec(seed=7), headers=KEY)

    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")


async def test_another_route_under_the_key_is_refused(service: Service) -> None:
    job = (await service.http.post("/v1/jobs", json=spec(), headers=KEY)).json()

    response = await service.http.post(f"/v1/jobs/{job['id']}/cancel", headers=KEY)

    assert response.status_code == 422
    assert (await service.job(job["id"]))["state"] == "queued"


@on_both_databases
async def test_a_concurrent_request_is_a_conflict(service: Service) -> None:
    service.planner.held = asyncio.Event()
    first = asyncio.create_task(service.http.post("/v1/jobs", json=spec(), headers=KEY))
    await eventually(lambda: _is_reserved(service))

    second = await service.http.post("/v1/jobs", json=spec(), headers=KEY)

    service.planner.held.set()
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_flight")
    assert (await first).status_code == 201


async def test_a_refused_request_releases_the_key(service: Service) -> None:
    refused = await service.http.post("/v1/jobs", json=spec(name="impossible"), headers=KEY)
    accepted = await service.http.post("/v1/jobs", json=spec(), headers=KEY)

    assert (refused.status_code, accepted.status_code) == (422, 201)


async def test_the_key_of_a_killed_server_can_be_used_again(service: Service) -> None:
    await service.http.post("/v1/jobs", json=spec(), headers=KEY)
    async with service.app.state.services.db.write() as session:
        await session.execute(update(IdempotencyRow).values(status=None, created_at=now() - timedelta(hours=1)))

    assert (await service.http.post("/v1/jobs", json=spec(), headers=KEY)).status_code == 201


@pytest.mark.parametrize(("age_hours", "jobs"), [(23, 1), (25, 2)])
async def test_a_response_is_stored_for_a_day(service: Service, age_hours: int, jobs: int) -> None:
    await service.http.post("/v1/jobs", json=spec(), headers=KEY)
    async with service.app.state.services.db.write() as session:
        await session.execute(update(IdempotencyRow).values(created_at=now() - timedelta(hours=age_hours)))

    await service.http.post("/v1/jobs", json=spec(), headers=KEY)

    assert len(await service.items("/v1/jobs")) == jobs


async def test_the_response_survives_a_restart(start: Start) -> None:
    first = await (await start()).http.post("/v1/jobs", json=spec(), headers=KEY)
    repeated = await (await start()).http.post("/v1/jobs", json=spec(), headers=KEY)

    assert repeated.json() == first.json()


async def _is_reserved(service: Service) -> bool:
    async with service.app.state.services.db.read() as session:
        return await session.scalar(select(IdempotencyRow.key)) is not None
