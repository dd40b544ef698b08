"""A server that is suspended in a round and continues after another server has gone on: it does no harm."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from tinyclip.artifacts.paths import deployment_folder, index_request
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database import postgresql
from tinyclip_server.database.engine import now
from tinyclip_server.database.locks import key_of, turn
from tinyclip_server.database.tables import EvaluationRow, IndexRow, JobRow
from tinyclip_server.orchestration.followers import follower
from tinyclip_server.orchestration.scheduling import attempts
from tinyclip_server.orchestration.scheduling.attempts import observe_attempt

from tests.server.deployments.demo import MODEL
from tests.server.fakes import ScriptedServe
from tests.server.service import Service, Start, eventually

TASK = {"name": "val", "kind": "zero_shot", "shards": "/data/val.tar", "classes": ["a", "b"], "templates": ["{}"]}


def before(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, event: Callable[[], Awaitable[None]]) -> None:
    """Let something happen once, while the server waits to make a call."""
    call, happened = getattr(target, name), False

    async def suspended(*args: Any, **kwargs: Any) -> Any:
        nonlocal happened
        if not happened:
            happened = True
            await event()
        return await call(*args, **kwargs)

    monkeypatch.setattr(target, name, suspended)


class TestFollowedJobs:
    async def test_a_job_that_was_replaced_is_not_submitted(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        await service.register_model("emoji")
        await service.call("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [TASK]}, status=201)

        async def replaced() -> None:
            async with service.app.state.services.db.write() as session:
                await session.execute(update(EvaluationRow).values(version=EvaluationRow.version + 1))

        before(monkeypatch, follower, "observe", replaced)
        await service.reconcile("evaluations")

        assert service.ray.submissions == []
        assert not list(service.artifacts.glob("evaluations/*/request.json"))

    async def test_files_of_an_index_that_was_created_again_are_kept(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await service.register_model(MODEL)
        await _create_index(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED
        await service.http.delete("/v1/indexes/pets")
        request = service.artifacts / "indexes" / "pets" / "request.json"

        async def another_server_removes_it_and_a_user_creates_it_again() -> None:
            async with service.app.state.services.db.write() as session:
                await session.delete(await session.get_one(IndexRow, "pets"))
            await _create_index(service)

        before(monkeypatch, service.ray, "job_status", another_server_removes_it_and_a_user_creates_it_again)
        await service.reconcile("indexes")

        assert request.exists()
        assert (await service.get("/v1/indexes/pets"))["state"] == "building"


async def _create_index(service: Service) -> None:
    await service.call("PUT", "/v1/indexes/pets", {"model": f"{MODEL}@1"}, status=202)
    await service.reconcile("indexes")


class TestDeployments:
    async def test_files_of_a_deployment_that_was_created_again_are_kept(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await start(ScriptedServe())
        await service.register_model(MODEL)
        labels = service.artifacts / "deployments" / "demo" / "label-sets" / "pets.json"
        await service.call("PUT", "/v1/deployments/demo", {"model": f"{MODEL}@1"}, status=202)
        await service.http.delete("/v1/deployments/demo")
        other = await start(service.ray)

        async def another_server_removes_it_and_a_user_creates_it_again() -> None:
            await other.reconcile("deployments", 2)
            await other.call("PUT", "/v1/deployments/demo", {"model": f"{MODEL}@1"}, status=202)
            labels.parent.mkdir(parents=True)
            labels.write_text("{}")

        status = service.ray.serve_status

        async def stale_status() -> dict[str, Any]:
            seen = await status()
            monkeypatch.setattr(service.ray, "serve_status", status)
            await another_server_removes_it_and_a_user_creates_it_again()
            return seen

        monkeypatch.setattr(service.ray, "serve_status", stale_status)
        await service.reconcile("deployments")

        assert labels.exists()
        assert (await service.get("/v1/deployments/demo"))["state"] != "deleting"


class TestTrainingJobs:
    @pytest.mark.parametrize("writes", [0, 1], ids=["before control.json", "before spec.json"])
    async def test_one_whose_lease_expires_meanwhile_writes_and_submits_nothing_more(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, writes: int
    ) -> None:
        service = await start()
        job = await service.submit()
        scheduler, store = service.app.state.scheduler, service.app.state.services.store
        (claim,) = await scheduler._claim()
        if writes == 0:  # as if the control file had been written, so that it is read
            claim = replace(claim, control=claim.wanted_control)
        written: list[str] = []
        write = store.write_bytes

        async def counted(path: str, data: bytes, **limit: float) -> None:
            written.append(path)
            await write(path, data, **limit)
            if len(written) == writes:
                monkeypatch.setattr(attempts, "now", lambda: claim.lease_until)

        monkeypatch.setattr(store, "write_bytes", counted)
        read = store.read_if_exists

        async def suspended(path: str) -> bytes | None:
            if writes == 0:
                monkeypatch.setattr(attempts, "now", lambda: claim.lease_until)
            found: bytes | None = await read(path)
            return found

        monkeypatch.setattr(store, "read_if_exists", suspended)
        await observe_attempt(service.app.state.services, claim, ask_ray=True)

        assert [path.rsplit("/", 1)[1] for path in written] == ["control.json", "spec.json"][:writes]
        assert service.ray.submissions == []
        assert job["id"] in claim.submission_id

    async def test_an_attempt_whose_lease_expired_before_its_submission_is_submitted_by_the_next_round(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await start()
        job = await service.submit()
        store = service.app.state.services.store
        write, hung_for = store.write_bytes, timedelta()

        async def hanging_write(path: str, data: bytes, **limit: float) -> None:
            nonlocal hung_for
            await write(path, data, **limit)
            hung_for = timedelta(minutes=1)

        monkeypatch.setattr(store, "write_bytes", hanging_write)
        monkeypatch.setattr(attempts, "now", lambda: now() + hung_for)
        await service.tick()
        submitted_at_first = list(service.ray.submissions)
        monkeypatch.setattr(store, "write_bytes", write)
        hung_for = timedelta()
        await service.tick()

        assert submitted_at_first == []
        assert service.ray.submissions == [f"tc-{job['id']}-a1"]
        assert (await service.job(job["id"]))["attempt"] == 1


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.parametrize("kind", ["indexes", "deployments"])
async def test_one_server_at_a_time_removes_a_name_that_can_be_used_again(start: Start, kind: str) -> None:
    service = await start(ScriptedServe())
    await service.register_model(MODEL)
    await service.call("PUT", f"/v1/{kind}/pets", {"model": f"{MODEL}@1"}, status=202)
    folder = service.artifacts / kind / "pets"
    (folder / "files").mkdir(parents=True)
    await service.http.delete(f"/v1/{kind}/pets")
    name = index_request("pets") if kind == "indexes" else deployment_folder("pets")

    async with turn(service.app.state.services.db, key_of(name), 60) as other:
        assert other is not None
        await service.reconcile(kind, 2)
        assert (await service.get(f"/v1/{kind}/pets"))["state"] == "deleting"
        assert (folder / "files").exists()
    await service.reconcile(kind, 2)

    assert not folder.exists()
    assert await service.items(f"/v1/{kind}") == []


@pytest.fixture
def short_idle_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LEAST_IDLE_SECONDS", 0.5)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("short_idle_transactions")
async def test_a_job_that_a_suspended_server_keeps_locked_is_taken_over(start: Start) -> None:
    suspended = await start(lease_seconds=0.5)
    other = await start(suspended.ray)
    worker = await suspended.running()
    worker.step(1, loss=1.0)

    async def has_taken_over() -> bool:
        await other.tick()
        return "progress" in [event["type"] for event in await other.events(worker.job)]

    async with suspended.app.state.services.db.read() as session:
        await session.execute(select(JobRow).where(JobRow.id == worker.job).with_for_update())
        await eventually(has_taken_over, seconds=20)
        with pytest.raises(DBAPIError):
            await session.execute(select(JobRow))


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("short_idle_transactions")
async def test_one_that_is_suspended_in_a_transaction_does_not_keep_its_locks(start: Start) -> None:
    suspended, other = await start(lease_seconds=1), await start()
    job = await other.submit()

    with pytest.raises(DBAPIError):  # it continues, and its session has ended
        await _start_while(suspended, other.tick)

    assert other.ray.submissions == [f"tc-{job['id']}-a1"]


async def _start_while(service: Service, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Start the next job of a queue, in a transaction that is open meanwhile."""
    async with service.app.state.services.db.write() as session:
        await service.app.state.scheduler._start_next(session)
        async with asyncio.timeout(10):
            await meanwhile()
