"""Searches: created, found and ended; their trials are jobs, and the engine's advice is obeyed."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow, MeasurementRow, SearchRow
from tinyclip_server.orchestration.searches.loop import release

from tests.server.documents import spec
from tests.server.events import Worker
from tests.server.service import Service, Start, on_both_databases

SEARCHES = "/v1/searches"
RATES = [1e-4, 2e-4]


TASKS = [{"name": "emoji", "kind": "zero_shot", "shards": "/data/wds_emoji"}]


def searched(name: str = "emoji", **changes: Any) -> dict[str, Any]:
    """Return a spec with a task."""
    return spec(name=name, **{"evaluation": {"tasks": TASKS}, **changes})


def post(**changes: Any) -> dict[str, Any]:
    return {"spec": searched(), "vary": {"optimizer.lr": RATES}, "strategy": "grid", **changes}


async def created(service: Service, **changes: Any) -> str:
    return str((await service.call("POST", SEARCHES, post(**changes), status=201))["id"])


async def search(service: Service, id: str) -> dict[str, Any]:
    return await service.get(f"{SEARCHES}/{id}")


async def events(service: Service, id: str) -> list[str]:
    return [event["type"] for event in await service.items(f"{SEARCHES}/{id}/events")]


async def begun(service: Service, **changes: Any) -> tuple[str, str]:
    """Return a search with a running trial, and the id of the trial's job."""
    id = await created(service, **changes)
    await service.reconcile("searches")
    return id, (await search(service, id))["trials"][0]["job"]


async def end_trial(service: Service, job: str, *, fails: bool = False, **changes: Any) -> None:
    """Run the queued job of a trial to its end."""
    await service.tick()
    worker = Worker(service.artifacts, await service.job(job))
    if fails:
        failure = {"code": "nan", "retryable": False, "stage": 0}
        worker.emit({"type": "attempt.failed", "message": "the loss is not finite", "data": failure})
    else:
        worker.start()
        worker.succeed(**changes)
    await service.tick()


class TestCreating:
    async def test_is_queued_and_its_trials_are_jobs(self, service: Service) -> None:
        id, job = await begun(service)

        found = await search(service, id)
        assert (found["state"], found["phase"], found["name"]) == ("running", "trials", "emoji")
        assert found["trials"][0]["settings"] == {"optimizer.lr": 1e-4}
        trial = await service.job(job)
        assert trial["parent"] == {"search": id, "trial": 0}
        assert trial["spec"]["optimizer"]["lr"] == 1e-4
        assert await events(service, id) == ["search.created", "search.running", "trial.begun"]

    async def test_validate_only_plans(self, service: Service) -> None:
        plan = await service.call("POST", f"{SEARCHES}?validate_only=true", post(budget={"device_hours": 0.1}))

        assert (plan["trials"], plan["trials_by_rung"], plan["device_hours"]) == (2, [2], 0.1)
        assert plan["plan"]["steps"] == 20
        assert "the budget has 0.1" in plan["warnings"][0]
        assert await service.items(SEARCHES) == []

    async def test_a_repeated_request_creates_one(self, service: Service) -> None:
        first = await service.call("POST", SEARCHES, post(), status=201, key="once")
        second = await service.call("POST", SEARCHES, post(), status=201, key="once")

        assert first == second
        assert [each["id"] for each in await service.items(SEARCHES)] == [first["id"]]

    @pytest.mark.parametrize(
        ("changes", "pointer", "message"),
        [
            ({"constraints": [{"task": "cars", "min": 0.5}]}, "/constraints/0/task", "none of the spec's evaluation tasks"),
            ({"constraints": [{"bytes": {"max": 1}, "params": {"max": 1}}]}, "/constraints/0", "give exactly one of"),
            ({"constraints": [{"task": "emoji", "metric": "f1", "min": 0.5}]}, "/constraints/0/metric", "use one of top1, top5"),
            ({"constraints": [{"latency_ms": {"max": 1}, "engine": "auto"}]}, "/constraints/0/engine", "'openvino-int8'"),
            ({"constraints": [{"bytes": {"max": 1}, "engine": "openvino"}]}, "/constraints/0", "engine belong to latency_ms"),
            (
                {"constraints": [{"latency_ms": {"max": 1}, "engine": "openvino", "device": "cuda"}]},
                "/constraints/0/engine", "runs on CPUs only",
            ),
            ({"constraints": [{"bytes": {"max": 1e6}}], "minimize": "latency_ms"}, "/minimize", "needs a constraint of latency"),
            ({"spec": spec()}, "/spec/evaluation/tasks", "give at least one"),
            ({"vary": {"evaluation.every_steps": [1, 2]}}, "/vary/evaluation.every_steps", "the same for all"),
            ({"vary": {"seed": {"min": 0, "max": 9}}}, "/vary/seed", "valid integer"),
            (
                {"constraints": [{"bytes": {"max": 1e6}}], "vary": {"stages.1.student.image.layers": [1, 2]}},
                "/vary/stages.1.student.image.layers", "is the search's to choose",
            ),
            (
                {"constraints": [{"bytes": {"max": 1e6}}], "vary": {"stages.0.train.steps": [1, 2]}},
                "/vary/stages.0.train.steps", "has no effect",
            ),
            (
                {"constraints": [{"bytes": {"max": 1e6}}], "vary": {"teacher.model": ["ViT-B-32", "ViT-B-16"]}},
                "/vary/teacher.model", "one teacher after another",
            ),
            ({"vary": {"optimizer.rate": [1]}}, "/vary/optimizer.rate/0", "unknown field"),
            ({"vary": {"optimizer.lr": [1e-4, -1]}}, "/vary/optimizer.lr/1", "greater than 0"),
            ({"vary": {"optimizer.lr": {"min": 0, "max": 1}}}, "/vary/optimizer.lr/min", "greater than 0"),
            ({"vary": {"seed": list(range(13))}}, "/vary", "13 combinations, more than budget.trials (12)"),
            ({"vary": {}}, "", "give constraints"),
            ({"constraints": [{"bytes": {"max": 9}}]}, "/constraints/0/bytes/max", "the smallest student has 100"),
            ({"spec": searched("impossible")}, "/spec/stages/0/student/image/layers", "at most 1"),
        ],
    )
    async def test_invalid_fields_are_named(
        self, service: Service, changes: dict[str, Any], pointer: str, message: str
    ) -> None:
        problem = await service.call("POST", SEARCHES, post(**changes), status=422)

        assert problem["errors"][0]["pointer"] == pointer
        assert message in problem["errors"][0]["message"]

    async def test_all_contradictions_are_named_at_once(self, service: Service) -> None:
        constraints = [
            {"latency_ms": {"max": 1}, "device": "cpu"}, {"latency_ms": {"max": 1}, "tower": "text", "device": "cuda"},
            {"task": "cars", "keep": 0.9},
        ]  # fmt: skip

        problem = await service.call("POST", SEARCHES, post(constraints=constraints), status=422)

        errors = {error["pointer"]: error["message"] for error in problem["errors"]}
        assert list(errors) == ["/constraints/2/task", "/constraints/1/device"]
        assert errors["/constraints/1/device"].startswith("is not cpu, as of constraint 0")

    async def test_every_limit_that_nothing_can_meet_is_named(self, service: Service) -> None:
        constraints = [{"bytes": {"max": 9}}, {"bytes": {"max": 1000}}, {"bytes": {"max": 8}}]

        problem = await service.call("POST", SEARCHES, post(constraints=constraints), status=422)

        assert problem["code"] == "impossible_search"
        assert [error["pointer"] for error in problem["errors"]] == ["/constraints/0/bytes/max", "/constraints/2/bytes/max"]

    async def test_a_plan_warns_of_what_the_service_does_otherwise(self, service: Service) -> None:
        body = post(constraints=[{"bytes": {"max": 1000}}])

        (stages,) = (await service.call("POST", f"{SEARCHES}?validate_only=true", body))["warnings"]

        assert "as in the last stage, half;" in stages

    @pytest.mark.parametrize(
        ("constraint", "field"), [({"task": "a", "keep": 0.9}, "keep"), ({"latency_ms": {"max": 1}}, "latency_ms")]
    )
    async def test_shares_and_latencies_need_a_teacher(
        self, service: Service, constraint: dict[str, Any], field: str
    ) -> None:
        stages = [{**stage, "inherit": "none"} for stage in spec()["stages"]]
        tasks = {"tasks": [{"name": "a", "kind": "retrieval", "shards": "/data/a.tar"}]}
        alone = searched(teacher=None, objective={"affinity": 0, "contrastive": 1}, evaluation=tasks, stages=stages)

        problem = await service.call("POST", SEARCHES, post(spec=alone, constraints=[constraint]), status=422)

        assert problem["errors"][0]["pointer"] == f"/constraints/0/{field}"


@on_both_databases
class TestTrials:
    async def test_follow_each_other_until_the_result(self, service: Service) -> None:
        id, first = await begun(service)
        await end_trial(service, first)
        await service.reconcile("searches", 2)
        second = (await search(service, id))["trials"][1]["job"]
        await end_trial(service, second, macs=4000)
        await service.reconcile("searches", 2)

        found = await search(service, id)
        assert (found["state"], found["reason"]) == ("succeeded", "it is the smallest")
        assert found["importance"] == {"optimizer.lr": 1.0}
        assert [(trial["state"], trial["macs"], trial["bytes"]) for trial in found["trials"]] == [
            ("succeeded", 5000, 10), ("succeeded", 4000, 10),
        ]  # fmt: skip
        assert found["trials"][0]["quality"] == {"emoji": {"top1": 0.4}}
        assert found["recommended"]["model"] == {"name": "emoji", "version": 1}
        assert found["device_hours"] > 0
        [listed] = await service.items(SEARCHES)
        assert (listed["trials"], listed["trials_begun"], listed["trials_ended"]) == ([], 2, 2)
        assert (await service.items(SEARCHES))[0]["device_hours"] == pytest.approx(found["device_hours"])
        assert await events(service, id) == [
            "search.created", "search.running", "trial.begun", "trial.succeeded", "trial.begun", "trial.succeeded",
            "search.succeeded",
        ]  # fmt: skip

    async def test_a_failed_one_does_not_fail_the_search(self, service: Service) -> None:
        id, first = await begun(service)
        await end_trial(service, first, fails=True)
        await service.reconcile("searches", 2)

        found = await search(service, id)
        assert [(trial["state"], trial["error"]) for trial in found["trials"]] == [
            ("failed", "the loss is not finite"), ("queued", ""),
        ]  # fmt: skip
        assert found["state"] == "running"

    async def test_one_that_cannot_be_planned_fails_with_the_reason(self, service: Service) -> None:
        id = await created(service, vary={"name": ["impossible", "possible"]})
        await service.reconcile("searches", 2)

        found = await search(service, id)
        assert [(trial["state"], trial["job"] is None) for trial in found["trials"]] == [("failed", True), ("queued", False)]
        assert "at most 1" in found["trials"][0]["error"]

    async def test_several_at_once(self, service: Service) -> None:
        await service.submit(name="another")
        id, _ = await begun(service, budget={"at_once": 2})

        trials = (await search(service, id))["trials"]
        assert len(trials) == 2
        jobs = await service.items("/v1/jobs", parent=id)
        assert {job["id"] for job in jobs} == {trial["job"] for trial in trials}

    async def test_all_of_a_search_count_as_one_job(self, service: Service) -> None:
        _, first = await begun(service, budget={"at_once": 2})
        other = await service.submit(name="another")

        await service.tick(3)

        queued = await service.items("/v1/jobs", state="queued")
        assert [job["id"] for job in queued] == [other["id"]]
        assert (await service.job(first))["state"] != "queued"

    @pytest.mark.parametrize(("name", "reason"), [("unadvisable", "no layout is that fast"), ("idle", "no idea")])
    async def test_without_advice_the_search_fails(self, service: Service, name: str, reason: str) -> None:
        id = await created(service, spec=searched(name))
        await service.reconcile("searches")

        found = await search(service, id)
        assert (found["state"], reason in found["message"], reason in found["reason"]) == ("failed", True, True)


@on_both_databases
class TestEnding:
    async def test_cancelling_cancels_the_jobs(self, service: Service) -> None:
        id, job = await begun(service)

        found = await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)

        assert (found["state"], (await service.job(job))["state"]) == ("cancelled", "cancelled")

    async def test_cancelling_waits_for_the_jobs(self, service: Service) -> None:
        id, job = await begun(service)
        await service.tick()
        worker = Worker(service.artifacts, await service.job(job))
        worker.start()
        await service.tick()
        await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)
        await service.reconcile("searches")
        assert ((await search(service, id))["state"], (await service.job(job))["state"]) == ("cancelling", "cancelling")

        worker.emit({"type": "attempt.stopped", "data": {"desired": "cancel", "step": 1}})
        await service.tick()
        await service.reconcile("searches")

        found = await search(service, id)
        assert (found["state"], found["trials"][0]["state"], found["actions"]) == ("cancelled", "cancelled", ["delete"])

    async def test_a_paused_one_goes_on(self, service: Service) -> None:
        id, job = await begun(service)
        paused = await service.call("POST", f"{SEARCHES}/{id}/pause", status=202)
        assert (paused["state"], paused["actions"]) == ("paused", ["cancel", "resume"])
        assert (await service.job(job))["state"] == "paused"
        await service.reconcile("searches")

        await service.call("POST", f"{SEARCHES}/{id}/resume", status=202)
        await service.reconcile("searches")

        assert ((await search(service, id))["state"], (await service.job(job))["state"]) == ("running", "queued")

    async def test_only_an_ended_one_is_deleted_and_its_jobs_stay(self, service: Service) -> None:
        id, job = await begun(service)
        problem = await service.call("DELETE", f"{SEARCHES}/{id}", status=409)
        assert problem["code"] == "search_not_terminal"
        await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)

        assert (await service.http.delete(f"{SEARCHES}/{id}")).status_code == 204
        await service.reconcile("searches")

        assert (await service.http.get(f"{SEARCHES}/{id}")).status_code == 404
        assert (await service.job(job))["parent"] is None
        async with service.app.state.services.db.read() as session:
            assert await session.get(SearchRow, id) is None

    async def test_its_jobs_are_not_deleted_before_its_end(self, service: Service) -> None:
        id, job = await begun(service)
        await service.call("POST", f"/v1/jobs/{job}/cancel", status=202)

        problem = await service.call("DELETE", f"/v1/jobs/{job}", status=409)
        assert (problem["code"], "delete" in (await service.job(job))["actions"]) == ("search_in_progress", False)
        await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)
        await service.reconcile("searches")

        assert (await service.http.delete(f"/v1/jobs/{job}")).status_code == 204
        assert (await search(service, id))["trials"][0]["state"] == "cancelled"

    @pytest.mark.parametrize("action", ["pause", "resume"])
    async def test_an_ended_one_is_not_changed(self, service: Service, action: str) -> None:
        id, _ = await begun(service)
        await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)

        problem = await service.call("POST", f"{SEARCHES}/{id}/{action}", status=409)

        assert problem["code"] == "illegal_transition"


class TestServers:
    async def test_another_one_waits_for_the_lease(self, service: Service, start: Start) -> None:
        id = await created(service)
        other = await start()
        await service.reconcile("searches")
        job = (await search(service, id))["trials"][0]["job"]
        await end_trial(service, job)

        await other.reconcile("searches", 2)
        assert len((await search(service, id))["trials"]) == 1
        async with service.app.state.services.db.write() as session:
            await session.execute(update(SearchRow).values(lease_until=now()))
        await other.reconcile("searches", 2)

        assert len((await search(service, id))["trials"]) == 2

    async def test_a_server_that_stops_gives_its_leases_up(self, service: Service, start: Start) -> None:
        id = await created(service)
        await service.reconcile("searches")
        job = (await search(service, id))["trials"][0]["job"]
        await end_trial(service, job)
        await release(service.app.state.services)
        other = await start()

        await other.reconcile("searches", 2)

        assert len((await search(other, id))["trials"]) == 2

    async def test_advice_about_an_older_record_is_not_obeyed(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        id = await created(service)
        advise = service.planner.advise

        async def paused_meanwhile(project: str, record: Any) -> Any:
            advice = await advise(project, record)
            await service.call("POST", f"{SEARCHES}/{id}/pause", status=202)
            await service.call("POST", f"{SEARCHES}/{id}/resume", status=202)
            return advice

        monkeypatch.setattr(service.planner, "advise", paused_meanwhile)
        await service.reconcile("searches")
        assert (await search(service, id))["trials"] == []
        monkeypatch.setattr(service.planner, "advise", advise)
        await service.reconcile("searches", 2)

        async with service.app.state.services.db.read() as session:
            assert len((await session.scalars(JobRow.__table__.select())).all()) == 1

    async def test_advice_is_asked_for_only_when_something_has_changed(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id, job = await begun(service)
        await service.reconcile("searches")
        asked = []
        advise = service.planner.advise

        async def counted(project: str, record: Any) -> Any:
            asked.append(record)
            return await advise(project, record)

        monkeypatch.setattr(service.planner, "advise", counted)
        await service.reconcile("searches", 3)
        assert asked == []
        await end_trial(service, job)
        await service.reconcile("searches", 3)

        assert len(asked) == 2
        assert asked[0].trials[0].quality == {"emoji": {"top1": 0.4}}
        assert (await search(service, id))["state"] == "running"


class TestEvents:
    async def test_are_streamed_until_the_end(self, service: Service) -> None:
        id, _ = await begun(service)
        await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)

        response = await service.http.get(f"{SEARCHES}/{id}/events", headers={"Accept": "text/event-stream"})

        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data")]
        types = [json.loads(line)["type"] for line in lines]
        assert types == await events(service, id)
        assert types[-1] == "search.cancelled"
        response = await service.http.get(
            f"{SEARCHES}/{id}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": str(len(types) - 1)}
        )
        assert response.text.count("data: ") == 1

    async def test_a_long_poll_answers_with_a_change(self, service: Service) -> None:
        id = await created(service)
        etag = (await service.http.get(f"{SEARCHES}/{id}")).headers["etag"]
        unchanged = await service.http.get(f"{SEARCHES}/{id}", headers={"If-None-Match": etag})
        await service.reconcile("searches")
        changed = await service.http.get(f"{SEARCHES}/{id}?wait=5", headers={"If-None-Match": etag})

        assert (unchanged.status_code, changed.status_code, changed.json()["state"]) == (304, 200, "running")


class TestKills:
    """A server that is killed between any two steps: the next round does the same."""

    @pytest.mark.parametrize("call", range(7))
    @pytest.mark.parametrize("ended", [0, 1, 2])
    async def test_a_round_that_is_cut_off_is_repeated(
        self, service: Service, start: Start, monkeypatch: pytest.MonkeyPatch, ended: int, call: int
    ) -> None:
        """The round after the end of this many trials is cut off."""
        id = await created(service, constraints=[{"bytes": {"max": 1000}}])
        for number in range(ended):
            await service.reconcile("searches", 2)
            await end_trial(service, (await search(service, id))["trials"][number]["job"])
        await _cut_off(service, monkeypatch, call)
        other = await start()
        async with other.app.state.services.db.write() as session:
            await session.execute(update(SearchRow).values(lease_until=now()))

        await other.reconcile("searches", 2)

        begun = min(ended + 1, 2)
        assert [trial["number"] for trial in (await search(other, id))["trials"]] == list(range(begun))
        of_trials = [type for number in range(begun) for type in ("trial.begun", "trial.succeeded")[: 1 + (number < ended)]]
        at_the_end = ["finalists.begun"] if ended == 2 else []
        assert await events(other, id) == ["search.created", "search.running", *of_trials, *at_the_end]
        async with other.app.state.services.db.read() as session:
            assert sorted(await session.scalars(select(JobRow.trial))) == list(range(begun))
            assert len((await session.scalars(select(MeasurementRow.kind))).all()) == len(at_the_end)


async def _cut_off(service: Service, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Run a round whose transaction or question with this number fails before it has an effect, like all after it."""
    services, done = service.app.state.services, 0

    def count() -> None:
        nonlocal done
        done += 1
        if done > call:
            raise KilledError

    write, read, answer = services.db.write, services.db.read, service.planner._answer

    @contextlib.asynccontextmanager
    async def counted_write() -> AsyncIterator[Any]:
        async with write() as session:
            yield session
            count()

    @contextlib.asynccontextmanager
    async def counted_read() -> AsyncIterator[Any]:
        count()
        async with read() as session:
            yield session

    async def counted_answer(question: dict[str, Any]) -> dict[str, Any]:
        count()
        return await answer(question)

    monkeypatch.setattr(services.db, "write", counted_write)
    monkeypatch.setattr(services.db, "read", counted_read)
    monkeypatch.setattr(service.planner, "_answer", counted_answer)
    with contextlib.suppress(KilledError):
        await service.reconcile("searches")
    monkeypatch.setattr(services.db, "write", write)
    monkeypatch.setattr(services.db, "read", read)
    monkeypatch.setattr(service.planner, "_answer", answer)


class KilledError(Exception):
    """The end of a server."""
