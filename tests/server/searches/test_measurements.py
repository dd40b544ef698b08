"""The Ray jobs of searches: the speed of layouts before the trials, the candidates after them."""

from typing import Any

from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import MeasurementRow

from tests.server.events import write_segment
from tests.server.searches.test_searches import SEARCHES, created, end_trial, events, search, searched
from tests.server.service import Service

CONSTRAINTS = [{"latency_ms": {"max": 5}, "engine": "openvino", "batch": 8}]
ENGINE = {"family": "vit", "coefficients": {"constant": 0.5}, "median_error": 0.02, "p90_error": 0.05, "layouts": 48}
COSTS = {"hardware": "a CPU", "engines": {"openvino:image:8:1": ENGINE}, "teacher_ms": {"openvino:image:8:1": 9.0}}


def emit(service: Service, type: str, message: str = "", **data: Any) -> None:
    """Write the next segment of the newest Ray job, a measurement."""
    kind, id, attempt = service.ray.submissions[-1].removeprefix("tc-").split("-")
    folder = service.artifacts / "searches" / id / kind / "attempts" / attempt.removeprefix("a") / "events"
    event = {"type": f"{kind}.{type}", "message": message, "data": data}
    write_segment(folder, event, attempt=int(attempt.removeprefix("a")))


async def measuring(service: Service, **changes: Any) -> str:
    """Return a search whose costs are being measured."""
    id = await created(service, constraints=CONSTRAINTS, **changes)
    await service.reconcile("searches")
    await service.reconcile("measurements")
    return id


async def rounds(service: Service) -> None:
    await service.reconcile("measurements")
    await service.reconcile("searches", 2)
    await service.reconcile("measurements")


async def test_speeds_are_measured_before_the_trials(service: Service) -> None:
    id = await measuring(service)

    submission = service.ray.submissions[-1]
    assert submission == f"tc-costs-{id}-a1"
    assert service.ray.entrypoints[submission].endswith(f"costs --artifacts {service.artifacts} --search {id} --attempt 1")
    request = (service.artifacts / "searches" / id / "costs-request.json").read_text()
    assert '"engine": "openvino", "batch": 8' in request
    found = await search(service, id)
    assert (found["phase"], found["trials"]) == ("measuring", [])
    emit(service, "finished", **COSTS)
    await rounds(service)

    found = await search(service, id)
    assert (found["phase"], len(found["trials"])) == ("trials", 1)
    assert await events(service, id) == [
        "search.created", "search.running", "costs.begun", "costs.finished", "trial.begun",
    ]  # fmt: skip


async def test_the_advice_depends_on_the_speeds(service: Service) -> None:
    asked = []
    advise = service.planner.advise

    async def kept(project: str, record: Any) -> Any:
        asked.append(record)
        return await advise(project, record)

    service.planner.advise = kept  # type: ignore[method-assign]
    await measuring(service)
    emit(service, "finished", **COSTS)
    await rounds(service)

    assert asked[0].costs.engines["openvino:image:8:1"].layouts == 48
    assert (asked[0].steps, asked[0].device_hours) == (20, 0.2)
    assert asked[0].teacher.embed_dim == 32


async def test_an_impossible_latency_ends_the_search_before_its_first_trial(service: Service) -> None:
    id = await measuring(service, spec=searched("unadvisable"))
    emit(service, "finished", **COSTS)
    await rounds(service)

    found = await search(service, id)
    assert (found["state"], found["trials"]) == ("failed", [])
    assert found["message"] == found["reason"] == "no layout is that fast"


async def test_without_speeds_the_search_fails(service: Service) -> None:
    id = await measuring(service)
    emit(service, "failed", "openvino is not installed", code="missing_extra", pointer=None, value=None)
    await rounds(service)

    found = await search(service, id)
    assert (found["state"], found["message"]) == (
        "failed", "the measurement of costs failed: openvino is not installed",
    )  # fmt: skip


async def test_a_lost_job_is_repeated_twice(service: Service) -> None:
    id = await measuring(service)
    for attempt in (2, 3):
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await service.reconcile("measurements", 2)
        assert service.ray.submissions[-1] == f"tc-costs-{id}-a{attempt}"
    service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
    await rounds(service)

    assert (await search(service, id))["state"] == "failed"


async def test_a_cancelled_search_stops_its_measurement(service: Service) -> None:
    id = await measuring(service)
    submission = service.ray.submissions[-1]
    await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)
    await rounds(service)
    assert ((await search(service, id))["state"], service.ray.stopped) == ("cancelling", [submission, submission])
    service.ray.jobs[submission] = RayJobStatus.STOPPED
    await rounds(service)

    assert (await search(service, id))["state"] == "cancelled"
    async with service.app.state.services.db.read() as session:
        assert await session.get(MeasurementRow, (id, "costs")) is None


async def test_candidates_are_measured_after_the_trials(service: Service) -> None:
    id = await measuring(service, vary={"optimizer.lr": [1e-4]})
    emit(service, "finished", **COSTS)
    await rounds(service)
    await end_trial(service, (await search(service, id))["trials"][0]["job"])
    await service.reconcile("searches", 2)
    await service.reconcile("measurements")
    assert (await search(service, id))["phase"] == "finalists"
    assert service.ray.submissions[-1] == f"tc-finalists-{id}-a1"
    assert '"name": "emoji@1"' in (service.artifacts / "searches" / id / "finalists-request.json").read_text()

    measurement = {"engine": "openvino", "latency_ms": {"image:8": 4.5}, "bytes": 10, "quality": {"emoji": {"top1": 0.4}}}
    emit(service, "finished", measurements={"0": [measurement]}, left_out={"0": {"torch-bf16": "no kernel"}})
    await rounds(service)

    found = await search(service, id)
    assert (found["state"], found["front"][0]["measurements"]) == ("succeeded", [measurement])
    history = await service.items(f"{SEARCHES}/{id}/events")
    assert [event["data"] for event in history if event["type"] == "finalists.finished"] == [
        {"left_out": {"0": {"torch-bf16": "no kernel"}}},
    ]  # fmt: skip
    assert found["trials"][0]["measurements"] == [measurement]


async def test_a_deleted_search_leaves_no_files(service: Service) -> None:
    id = await measuring(service)
    emit(service, "failed", "there is no engine", code="missing_extra", pointer=None, value=None)
    await rounds(service)
    assert (await service.http.delete(f"{SEARCHES}/{id}")).status_code == 204
    service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
    await rounds(service)
    await service.reconcile("searches")

    assert not (service.artifacts / "searches" / id).exists()


async def test_a_measurement_that_fails_while_the_search_pauses_fails_it_later(service: Service) -> None:
    id = await measuring(service)
    await service.call("POST", f"{SEARCHES}/{id}/pause", status=202)
    emit(service, "failed", "there is no engine", code="missing_extra", pointer=None, value=None)
    await rounds(service)
    assert (await search(service, id))["state"] == "paused"

    await service.call("POST", f"{SEARCHES}/{id}/resume", status=202)
    await rounds(service)

    assert (await search(service, id))["state"] == "failed"
