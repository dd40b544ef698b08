"""Reading jobs, lists of them, their metrics, logs and checkpoints, and changing their metadata."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import update
from tinyclip_server.database.tables import JobRow
from tinyclip_server.http import long_polls

from tests.server.events import log_line, progress
from tests.server.service import Service, on_both_databases


class TestGet:
    @pytest.fixture(autouse=True)
    def _short_polls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(long_polls, "INTERVAL_SECONDS", 0.01)

    async def test_an_unchanged_job_is_304(self, service: Service) -> None:
        job = await service.submit()

        response = await service.http.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": f'"{job["etag"]}"'})

        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == f'"{job["etag"]}"'

    async def test_a_long_poll_returns_at_the_change(self, service: Service) -> None:
        job = await service.submit()
        waiting = asyncio.create_task(
            service.http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}, headers={"If-None-Match": job["etag"]})
        )
        await asyncio.sleep(0.02)

        await service.http.post(f"/v1/jobs/{job['id']}/cancel")

        response = await asyncio.wait_for(waiting, 5)
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")

    async def test_a_long_poll_without_a_change_ends_after_its_time(self, service: Service) -> None:
        job = await service.submit()
        begin = time.monotonic()

        response = await service.http.get(
            f"/v1/jobs/{job['id']}", params={"wait": 0.05}, headers={"If-None-Match": f'"{job["etag"]}"'}
        )

        assert response.status_code == 304
        assert time.monotonic() - begin >= 0.05

    async def test_progress_changes_the_etag(self, service: Service) -> None:
        worker = await service.running()
        before = (await service.job(worker.job))["etag"]
        worker.step(3, loss=1.0)

        await service.tick()

        assert (await service.job(worker.job))["etag"] != before


@on_both_databases
class TestFind:
    async def test_pages_are_newest_first_and_stable_under_inserts(self, service: Service) -> None:
        ids = [(await service.submit())["id"] for _ in range(5)]
        first = (await service.http.get("/v1/jobs", params={"page_size": 2})).json()
        await service.submit()
        second = (await service.http.get("/v1/jobs", params={"page_size": 2, "page_token": first["next_page_token"]})).json()
        third = (await service.http.get("/v1/jobs", params={"page_size": 2, "page_token": second["next_page_token"]})).json()

        seen = [job["id"] for page in (first, second, third) for job in page["items"]]
        assert seen == ids[::-1]
        assert third["next_page_token"] is None

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    async def test_every_job_is_on_one_page_despite_deletions_and_submits_meanwhile(self, service: Service, size: int) -> None:
        ids = [(await service.submit())["id"] for _ in range(6)][::-1]
        seen: list[str] = []
        token: str | None = None
        while not seen or token:
            params = {"page_size": size, **({"page_token": token} if token else {})}
            page = (await service.http.get("/v1/jobs", params=params)).json()
            seen += [job["id"] for job in page["items"]]
            token = page["next_page_token"]
            await service.submit(name="later")
            if len(seen) == size:  # the row of the page token is deleted
                await service.http.post(f"/v1/jobs/{seen[-1]}/cancel")
                assert (await service.http.delete(f"/v1/jobs/{seen[-1]}")).status_code == 204

        assert seen == ids

    async def test_jobs_of_the_same_time_are_each_listed_once(self, service: Service) -> None:
        ids = {(await service.submit())["id"] for _ in range(5)}
        async with service.app.state.services.db.write() as session:
            await session.execute(update(JobRow).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))

        first = (await service.http.get("/v1/jobs", params={"page_size": 3})).json()
        second = (await service.http.get("/v1/jobs", params={"page_size": 3, "page_token": first["next_page_token"]})).json()

        assert sorted(job["id"] for page in (first, second) for job in page["items"]) == sorted(ids)

    async def test_a_page_ends_early_when_its_specs_are_large(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        jobs = [(await service.submit())["id"] for _ in range(4)]
        monkeypatch.setattr("tinyclip_server.http.pagination.MAX_PAGE_BYTES", 1)

        listed, token = [], ""
        while token is not None:
            page = await service.get("/v1/jobs?page_size=3" + (f"&page_token={token}" if token else ""))
            listed.append([job["id"] for job in page["items"]])
            token = page["next_page_token"]

        assert listed == [[job] for job in reversed(jobs)]

    async def test_filters_by_state_name_and_labels(self, service: Service) -> None:
        a = await service.submit(name="a", labels={"team": "search", "run": "1"})
        b = await service.submit(name="b", labels={"team": "search", "run": "2"})
        await service.http.post(f"/v1/jobs/{b['id']}/cancel")

        async def found(**params: object) -> list[str]:
            return [job["id"] for job in await service.items("/v1/jobs", **params)]

        assert await found(state="queued") == [a["id"]]
        assert await found(name="b") == [b["id"]]
        assert await found(label="team:search") == [b["id"], a["id"]]
        assert await found(label=["team:search", "run:1"]) == [a["id"]]
        assert await found(label="team:other") == []
        assert await found(state=["queued", "cancelled"]) == [b["id"], a["id"]]
        assert await found(state=["queued", "running"], name=["a", "b"]) == [a["id"]]


class TestInvalidQueries:
    @pytest.mark.parametrize(
        ("params", "pointer"),
        [
            ({"page_size": 0}, "/page_size"),
            ({"page_size": "many"}, "/page_size"),
            ({"page_token": "nonsense"}, "/page_token"),
            ({"page_token": "WzFd"}, "/page_token"),
            ({"state": "sleeping"}, "/state"),
            ({"label": "team"}, "/label"),
        ],
    )
    async def test_the_parameter_is_named(self, service: Service, params: dict, pointer: str) -> None:
        response = await service.http.get("/v1/jobs", params=params)

        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == pointer

    @pytest.mark.parametrize("route", ["", "/events", "/logs", "/metrics", "/checkpoints"])
    async def test_an_unknown_job_is_not_found(self, service: Service, route: str) -> None:
        response = await service.http.get(f"/v1/jobs/job_none{route}")

        assert (response.status_code, response.json()["code"]) == (404, "no_such_job")

    async def test_an_unknown_route_is_a_problem(self, service: Service) -> None:
        response = await service.http.get("/v2/nothing")

        assert (response.status_code, response.json()["code"]) == (404, "no_route")
        assert response.headers["content-type"] == "application/problem+json"

    async def test_a_wrong_method_is_a_problem(self, service: Service) -> None:
        response = await service.http.put("/v1/jobs")

        assert (response.status_code, response.json()["code"]) == (405, "http_405")


class TestPatch:
    async def test_it_changes_the_given_fields(self, service: Service) -> None:
        job = await service.submit()

        response = await service.http.patch(f"/v1/jobs/{job['id']}", json={"labels": {"a": "b"}, "priority": 3, "name": "new"})

        changed = response.json()
        assert (changed["labels"], changed["priority"], changed["name"]) == ({"a": "b"}, 3, "new")
        assert [found["id"] for found in await service.items("/v1/jobs", label="a:b")] == [job["id"]]
        assert (await service.events(job["id"]))[-1]["type"] == "job.updated"

    async def test_a_stale_if_match_is_refused(self, service: Service) -> None:
        job = await service.submit()
        headers = {"If-Match": f'"{job["etag"]}"'}

        first = await service.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 1}, headers=headers)
        second = await service.http.patch(f"/v1/jobs/{job['id']}", json={"priority": 2}, headers=headers)

        assert (first.status_code, second.status_code) == (200, 412)
        assert (await service.job(job["id"]))["priority"] == 1

    async def test_progress_meanwhile_does_not_make_an_edit_stale(self, service: Service) -> None:
        worker = await service.running()
        etag = (await service.job(worker.job))["etag"]
        worker.step(3, loss=1.0)
        await service.tick()

        response = await service.http.patch(f"/v1/jobs/{worker.job}", json={"priority": 1}, headers={"If-Match": f'"{etag}"'})

        assert response.status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            {"state": "succeeded"}, {"priority": 10**9}, {"name": "No Spaces"}, {"labels": {"a": 1}}, {"name": None},
            {"labels": None},
        ],
    )
    async def test_an_invalid_change_is_refused(self, service: Service, body: dict) -> None:
        job = await service.submit()

        response = await service.http.patch(f"/v1/jobs/{job['id']}", json=body)

        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"].startswith("/" + next(iter(body)))


@on_both_databases
class TestMetrics:
    async def test_a_long_series_is_reduced_and_keeps_its_last_point(self, service: Service) -> None:
        worker = await service.running()
        worker.emit(*(progress(step, loss=float(step), lr=0.1) for step in range(1, 101)))
        await service.tick()

        response = await service.http.get(f"/v1/jobs/{worker.job}/metrics", params={"names": "loss,nothing", "max_points": 10})

        series = response.json()["series"]
        assert len(series["loss"]) <= 10
        assert series["loss"][-1] == {"stage": 0, "step": 100, "value": 100.0}
        assert [point["step"] for point in series["loss"]] == sorted(point["step"] for point in series["loss"])
        assert series["nothing"] == []

    async def test_a_reduced_series_keeps_its_ends_and_its_peaks(self, service: Service) -> None:
        values = [1.0] * 200
        values[57], values[143] = 50.0, -50.0
        worker = await service.running()
        worker.emit(*(progress(step, loss=value) for step, value in enumerate(values)))
        await service.tick()

        for max_points in (1, 2, 3, 4, 7, 20, 199):
            points = (await service.get(f"/v1/jobs/{worker.job}/metrics?max_points={max_points}"))["series"]["loss"]
            assert 1 <= len(points) <= max_points
            assert [point["step"] for point in points] == sorted({point["step"] for point in points})
            assert all(point["value"] == values[point["step"]] for point in points)
            assert points[-1]["step"] == 199
            if max_points >= 2:
                assert points[0]["step"] == 0
            if max_points >= 4:
                assert {50.0, -50.0} <= {point["value"] for point in points}

    async def test_a_short_series_is_complete(self, service: Service) -> None:
        worker = await service.running()
        worker.emit(*(progress(step, loss=float(step)) for step in range(10)))
        await service.tick()

        response = await service.http.get(f"/v1/jobs/{worker.job}/metrics", params={"max_points": 10})

        assert [point["step"] for point in response.json()["series"]["loss"]] == list(range(10))

    async def test_a_repeated_step_replaces_the_point(self, service: Service) -> None:
        worker = await service.running()
        worker.step(5, loss=1.0)
        worker.step(5, loss=2.0)
        await service.tick()

        points = (await service.http.get(f"/v1/jobs/{worker.job}/metrics")).json()["series"]["loss"]

        assert points == [{"stage": 0, "step": 5, "value": 2.0}]

    async def test_the_points_of_an_answer_are_limited(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        worker = await service.running()
        for step in range(1, 4):
            worker.step(step, loss=1.0)
        await service.tick()
        monkeypatch.setattr("tinyclip_server.jobs.history.MAX_POINTS", 2)

        response = await service.http.get(f"/v1/jobs/{worker.job}/metrics")

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/max_points")

    async def test_one_stage_can_be_selected(self, service: Service) -> None:
        worker = await service.running()
        worker.emit(progress(1, 0, loss=1.0), progress(1, 1, loss=2.0))
        await service.tick()

        points = (await service.http.get(f"/v1/jobs/{worker.job}/metrics", params={"stage": 1})).json()["series"]["loss"]

        assert points == [{"stage": 1, "step": 1, "value": 2.0}]


class TestLogsAndCheckpoints:
    async def test_tail_returns_the_last_lines(self, service: Service) -> None:
        worker = await service.running()
        worker.emit(*(log_line(f"line {n}") for n in range(1, 21)))
        await service.tick()

        lines = await service.items(f"/v1/jobs/{worker.job}/logs", tail=3)

        assert [line["message"] for line in lines] == ["line 18", "line 19", "line 20"]

    async def test_only_committed_checkpoints_are_listed(self, service: Service) -> None:
        worker = await service.running()
        stages = service.artifacts / "jobs" / worker.job / "stages"
        for place, names in {
            "1-half/a1/step-5": ["model.safetensors", "manifest.json"], "0-s/a2/step-100": ["model.safetensors", "manifest.json"],
            "0-s/a1/step-20": ["model.safetensors", "manifest.json"], "0-s/a1/step-30": ["model.safetensors"],
            "0-s/student": ["model.safetensors", "manifest.json"],
        }.items():  # fmt: skip
            (stages / place).mkdir(parents=True)
            for name in names:
                (stages / place / name).write_bytes(b"1234567")

        found = await service.items(f"/v1/jobs/{worker.job}/checkpoints")

        assert [(one["stage"], one["step"], one["attempt"], one["bytes"]) for one in found] == [
            (0, 20, 1, 7), (0, 100, 2, 7), (1, 5, 1, 7),
        ]
        assert found[0]["path"] == f"jobs/{worker.job}/stages/0-s/a1/step-20"


async def test_the_layout_diagram_of_a_stage(service: Service) -> None:
    job = await service.submit()
    folder = service.artifacts / "jobs" / job["id"] / "stages" / "1-half"
    folder.mkdir(parents=True)
    (folder / "layout.svg").write_text("<svg/>")

    responses = [await service.http.get(f"/v1/jobs/{job['id']}/stages/{stage}/layout.svg") for stage in (1, 0, 2, -1)]

    assert (responses[0].text, responses[0].headers["content-type"]) == ("<svg/>", "image/svg+xml")
    assert [response.status_code for response in responses] == [200, 404, 404, 422]
    assert [response.json()["code"] for response in responses[1:3]] == ["no_picture", "no_such_stage"]
