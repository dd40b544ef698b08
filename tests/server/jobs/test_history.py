"""A job's spec and attempts, the stream of its metric points, and the JSON Schema of specs."""

import json
from typing import Any

import jsonschema
import pytest
from sqlalchemy import update
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import JobRow
from tinyclip_server.http import streams

from tests.server.documents import spec
from tests.server.events import Worker
from tests.server.jobs.test_retry import failed, retry
from tests.server.service import Service, on_both_databases


@on_both_databases
class TestSpec:
    async def test_it_is_the_one_that_was_sent_and_the_one_that_the_workers_get(self, service: Service) -> None:
        worker = await service.started(labels={"team": "a"})

        specs = await service.get(f"/v1/jobs/{worker.job}/spec")

        assert specs["submitted"] == spec(labels={"team": "a"})
        assert specs["resolved"] == worker.spec()["spec"]

    async def test_a_retry_has_that_of_the_retried_job(self, service: Service) -> None:
        old = await failed(service)
        new = await retry(service, old.job)

        assert (await service.get(f"/v1/jobs/{new['id']}/spec")) == await service.get(f"/v1/jobs/{old.job}/spec")

    async def test_a_clone_has_it_with_the_changes(self, service: Service) -> None:
        job = await service.submit()
        changes = {"optimizer.lr": 0.5, "stages.1.train.steps": 7}

        clone = await service.call("POST", f"/v1/jobs/{job['id']}/clone", {"set": changes}, status=201)

        expected = spec(optimizer={"lr": 0.5})
        expected["stages"][1]["train"]["steps"] = 7
        assert (await service.get(f"/v1/jobs/{clone['id']}/spec"))["submitted"] == expected

    async def test_an_older_job_has_its_spec_without_defaults(self, service: Service) -> None:
        job = await service.submit(seed=0)
        async with service.app.state.services.db.write() as session:
            await session.execute(update(JobRow).values(submitted_spec=None))

        submitted = (await service.get(f"/v1/jobs/{job['id']}/spec"))["submitted"]
        clone = await service.call("POST", f"/v1/jobs/{job['id']}/clone", {"set": {"seed": 3}}, status=201)

        assert "optimizer" not in submitted
        assert (await service.submit(**submitted))["spec"] == job["spec"]
        assert (await service.get(f"/v1/jobs/{clone['id']}/spec"))["submitted"] == {**submitted, "seed": 3}


@on_both_databases
class TestAttempts:
    async def test_each_has_its_outcome_and_its_cause(self, service: Service) -> None:
        worker = await service.running(max_attempts=3)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick()
        second = Worker(service.artifacts, await service.job(worker.job))
        second.emit({"type": "attempt.failed", "message": "out of memory", "data": {"code": "oom", "retryable": True}})
        await service.tick(2)
        Worker(service.artifacts, await service.job(worker.job)).start()
        await service.tick()

        first, lost, running = await service.items(f"/v1/jobs/{worker.job}/attempts")

        assert (first["outcome"], lost["outcome"], running["outcome"]) == ("lost", "failed", None)
        assert first["cause"] == "attempt 1 is lost: its driver ended without a final event (Ray reports FAILED)"
        assert (lost["cause"], running["cause"]) == ("out of memory", "")
        assert [each["number"] for each in (first, lost, running)] == [1, 2, 3]
        assert [each["finished_at"] is None for each in (first, lost, running)] == [False, False, True]
        assert running["ray_submission_id"] == f"tc-{worker.job}-a3"

    @pytest.mark.parametrize(("verb", "cause"), [("pause", "the job was paused"), ("cancel", "the job was cancelled")])
    async def test_one_that_stopped_on_request_names_it(self, service: Service, verb: str, cause: str) -> None:
        worker = await service.running()
        await service.call("POST", f"/v1/jobs/{worker.job}/{verb}", status=202)
        worker.emit({"type": "attempt.stopped"})
        await service.tick()

        [attempt] = await service.items(f"/v1/jobs/{worker.job}/attempts")

        assert (attempt["outcome"], attempt["cause"]) == ("stopped", cause)

    async def test_one_that_succeeded_has_none(self, service: Service) -> None:
        job = await service.succeeded("emoji")

        [attempt] = await service.items(f"/v1/jobs/{job['id']}/attempts")

        assert (attempt["outcome"], attempt["cause"]) == ("succeeded", "")

    async def test_pages(self, service: Service) -> None:
        worker = await service.running(max_attempts=2)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick()

        first = await service.get(f"/v1/jobs/{worker.job}/attempts?page_size=1")
        second = await service.get(f"/v1/jobs/{worker.job}/attempts?page_size=1&page_token={first['next_page_token']}")

        assert [page["items"][0]["number"] for page in (first, second)] == [1, 2]
        assert second["next_page_token"] is None


@on_both_databases
class TestTailOfEvents:
    async def test_it_has_the_last_ones(self, service: Service) -> None:
        job = await service.succeeded("emoji")
        known = await service.items(f"/v1/jobs/{job['id']}/events")

        page = await service.get(f"/v1/jobs/{job['id']}/events?tail=3")
        more_than_there_are = await service.items(f"/v1/jobs/{job['id']}/events", tail=2_000)

        assert page["items"] == known[-3:]
        assert page["next_page_token"] is None
        assert more_than_there_are == known

    async def test_it_streams_the_last_ones(self, service: Service) -> None:
        job = await service.succeeded("emoji")
        known = await service.items(f"/v1/jobs/{job['id']}/events")

        headers = {"Accept": "text/event-stream"}
        response = await service.http.get(f"/v1/jobs/{job['id']}/events", params={"tail": 2}, headers=headers)

        numbers = [int(line.removeprefix("id:")) for line in response.text.splitlines() if line.startswith("id:")]
        assert numbers == [event["id"] for event in known[-2:]]

    @pytest.mark.parametrize("tail", [0, 2_001])
    async def test_it_is_bounded(self, service: Service, tail: int) -> None:
        job = await service.submit()

        assert (await service.http.get(f"/v1/jobs/{job['id']}/events", params={"tail": tail})).status_code == 422


@on_both_databases
class TestStreamOfMetrics:
    @pytest.fixture(autouse=True)
    def _short_polls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "POLL_SECONDS", 0.01)

    async def points(self, service: Service, job: str, after: int = 0, **query: Any) -> dict[int, dict[str, Any]]:
        """Return the points of the stream of a job that has ended, by number."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        response = await service.http.get(f"/v1/jobs/{job}/metrics", params=query, headers=headers)
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.text.splitlines()
        numbers = [int(line.removeprefix("id:")) for line in lines if line.startswith("id:")]
        assert numbers == sorted(set(numbers))
        documents = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
        return dict(zip(numbers, documents, strict=True))

    async def ended(self, service: Service) -> str:
        worker = await service.running()
        worker.step(1, loss=1.0, lr=0.5)
        worker.step(2, loss=2.0)
        worker.step(1, loss=3.0)
        worker.step(4, 1, loss=4.0)
        worker.succeed()
        await service.tick()
        return worker.job

    async def test_it_has_each_point_with_its_number(self, service: Service) -> None:
        job = await self.ended(service)

        found = await self.points(service, job)

        assert found == {
            2: {"name": "lr", "stage": 0, "step": 1, "value": 0.5}, 3: {"name": "loss", "stage": 0, "step": 2, "value": 2.0},
            4: {"name": "loss", "stage": 0, "step": 1, "value": 3.0}, 5: {"name": "loss", "stage": 1, "step": 4, "value": 4.0},
        }  # fmt: skip
        assert await self.points(service, job, after=3) == {number: found[number] for number in (4, 5)}

    async def test_names_and_stage_select_points(self, service: Service) -> None:
        job = await self.ended(service)

        assert list(await self.points(service, job, names="lr,nothing")) == [2]
        assert list(await self.points(service, job, stage=1)) == [5]

    async def test_it_goes_on_from_the_snapshot(self, service: Service) -> None:
        worker = await service.running()
        worker.step(1, loss=1.0)
        await service.tick()
        snapshot = await service.get(f"/v1/jobs/{worker.job}/metrics")
        worker.step(2, loss=2.0)
        worker.succeed()
        await service.tick()

        assert snapshot["last"] == 1
        assert [point["step"] for point in (await self.points(service, worker.job, after=1)).values()] == [2]
        assert (await service.get(f"/v1/jobs/{worker.job}/metrics"))["last"] == 2

    async def test_a_retry_counts_on(self, service: Service) -> None:
        old = await failed(service)
        last = (await service.get(f"/v1/jobs/{old.job}/metrics"))["last"]
        new = await retry(service, old.job)
        await service.tick()
        worker = Worker(service.artifacts, await service.job(new["id"]))
        worker.start(1)
        worker.step(4, 1, loss=9.0)
        worker.succeed()
        await service.tick()

        found = await self.points(service, new["id"])

        assert list(found) == [last - 1, last + 1]
        assert [point["value"] for point in found.values()] == [0.5, 9.0]


class TestSchema:
    async def test_it_accepts_what_the_api_accepts(self, service: Service) -> None:
        schema = await service.get("/v1/schemas/JobSpec")

        validator = jsonschema.Draft202012Validator(schema)
        validator.check_schema(schema)
        assert list(validator.iter_errors(spec())) == []
        assert list(validator.iter_errors(spec(optimiser={}))) != []
        references = {value for value in json.dumps(schema).split('"') if value.startswith("#/")}
        assert {name.removeprefix("#/$defs/") for name in references} <= set(schema["$defs"])

    async def test_fields_have_the_texts_of_the_models(self, service: Service) -> None:
        definitions = (await service.get("/v1/schemas/JobSpec"))["$defs"]

        assert definitions["Averaging"]["properties"]["decay"]["description"].startswith("Share of the average that a step keeps")
        assert definitions["WeightedTeacher"]["properties"]["model"]["description"].startswith("open_clip architecture")
        assert "holdout" in definitions["RetrievalTask"]["properties"]["subset"]["description"]
        assert "description" not in definitions["OptimizerSpec"]["properties"]["weight_decay"]

    async def test_it_can_be_cached(self, service: Service) -> None:
        first = await service.http.get("/v1/schemas/JobSpec")

        second = await service.http.get("/v1/schemas/JobSpec", headers={"If-None-Match": first.headers["etag"]})

        assert (second.status_code, second.content) == (304, b"")
        assert first.headers["cache-control"] == second.headers["cache-control"] == "private, max-age=300"

    async def test_another_name_is_not_found(self, service: Service) -> None:
        assert (await service.call("GET", "/v1/schemas/Nothing", status=404))["code"] == "no_such_schema"
