"""POST /v1/jobs: what is accepted, and what a bad spec is told."""

import asyncio
import sys
from typing import Any

import httpx
import pytest
from tinyclip.schemas import JobSpec
from tinyclip_server.backends.planner import ADMITTED
from tinyclip_server.problems import TooManyRequests

from tests.server.documents import spec
from tests.server.service import FAKE_PLANNER, Service, Start, eventually, on_both_databases


async def post(service: Service, body: Any, **params: Any) -> httpx.Response:
    return await service.http.post("/v1/jobs", json=body, params=params)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


class TestCreate:
    async def test_it_returns_the_queued_job_and_its_location(self, service: Service) -> None:
        response = await post(service, spec())

        job = response.json()
        assert response.status_code == 201
        assert response.headers["location"] == f"/v1/jobs/{job['id']}"
        assert response.headers["etag"] == f'"{job["etag"]}"'
        assert (job["labels"], job["project"], job["priority"]) == ({"team": "search"}, "default", 0)
        assert job["spec"]["optimizer"]["lr"] == 3e-4
        assert job["progress"]["stages"] == 2

    async def test_validate_only_returns_the_plan_without_an_effect(self, service: Service) -> None:
        response = await post(service, spec(), validate_only=True)

        assert response.status_code == 200
        assert response.json()["steps"] == 20
        assert await service.items("/v1/jobs") == []

    async def test_a_registry_teacher_is_pinned_for_user_and_worker(self, service: Service) -> None:
        await service.register_model("big")

        worker = await service.started(teacher={"model": "registry:big@latest"})

        assert (await service.job(worker.job))["spec"]["teacher"]["model"] == "registry:big@1"
        assert worker.spec()["spec"]["teacher"]["model"] == "registry:big@1"

    async def test_each_registry_teacher_of_several_is_pinned(self, service: Service) -> None:
        await service.register_model("big")
        teachers = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "registry:big@latest", "weight": 2}]

        worker = await service.started(teacher=None, teachers=teachers)

        kept, given = (await service.job(worker.job))["spec"]["teachers"], worker.spec()["spec"]["teachers"]
        assert [teacher["model"] for teacher in kept] == ["ViT-B-32", "registry:big@1"]
        assert [teacher["model"] for teacher in given] == ["ViT-B-32", "registry:big@1"]
        assert kept[1]["weight"] == given[1]["weight"] == 2

    async def test_the_version_to_inherit_from_is_pinned(self, service: Service) -> None:
        await service.register_model("small")
        stage = {"name": "on", "student": {}, "train": {"steps": 20}, "inherit_from": "registry:small@latest"}

        worker = await service.started(stages=[stage])

        assert (await service.job(worker.job))["spec"]["stages"][0]["inherit_from"] == "registry:small@1"
        assert worker.spec()["spec"]["stages"][0]["inherit_from"] == "registry:small@1"

    async def test_a_clone_has_the_requested_changes(self, service: Service) -> None:
        job = await service.submit()

        response = await service.http.post(
            f"/v1/jobs/{job['id']}/clone", json={"set": {"optimizer.lr": 0.5, "stages.1.train.steps": 7, "labels.team": "new"}}
        )

        clone = response.json()
        assert response.status_code == 201
        assert clone["id"] != job["id"]
        assert (clone["spec"]["optimizer"]["lr"], clone["spec"]["stages"][1]["train"]["steps"]) == (0.5, 7)
        assert clone["labels"] == {"team": "new"}


class TestInvalidInput:
    async def test_an_unknown_field_is_named_with_a_suggestion(self, service: Service) -> None:
        response = await post(service, spec(optimiser={"lr": 1}))

        problem = assert_problem(response, 422, "invalid_input")
        assert problem["errors"] == [
            {"pointer": "/optimiser", "value": {"lr": 1}, "message": "unknown field; did you mean optimizer?"}
        ]

    async def test_a_nested_unknown_field_has_its_pointer(self, service: Service) -> None:
        body = spec()
        body["stages"][1]["student"]["image"]["widht"] = 3

        problem = assert_problem(await post(service, body), 422, "invalid_input")

        assert problem["errors"][0]["pointer"] == "/stages/1/student/image/widht"
        assert problem["errors"][0]["message"].endswith("did you mean width?")

    async def test_the_pointer_to_a_field_of_a_task_leaves_out_the_kind_of_task(self, service: Service) -> None:
        task = {"name": "emoji", "kind": "zero_shot", "shards": "x.tar", "classes": ["a"], "template": ["{}"]}

        problem = assert_problem(await post(service, spec(evaluation={"tasks": [task]})), 422, "invalid_input")

        assert problem["errors"][0]["pointer"] == "/evaluation/tasks/0/template"
        assert "did you mean templates?" in problem["errors"][0]["message"]

    async def test_a_value_that_matches_no_branch_of_a_union_is_one_error(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(data={"train": {"shards": 7}})), 422, "invalid_input")

        assert [(error["pointer"], error["value"]) for error in problem["errors"]] == [("/data/train/shards", 7)]

    async def test_a_missing_field_is_named(self, service: Service) -> None:
        body = spec()
        del body["data"]["train"]

        problem = assert_problem(await post(service, body), 422, "invalid_input")

        assert problem["errors"] == [{"pointer": "/data/train", "value": None, "message": "this field is required"}]

    async def test_errors_of_the_planner_are_returned(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(name="impossible")), 422, "impossible_spec")

        assert problem["errors"][0]["pointer"] == "/stages/0/student/image/layers"
        assert problem["detail"] == "/stages/0/student/image/layers: the teacher has 1 layer; give at most 1"
        assert await service.items("/v1/jobs") == []

    async def test_an_unknown_registry_teacher_is_named(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(teacher={"model": "registry:ghost@1"})), 422, "unknown_model")

        assert problem["errors"][0]["pointer"] == "/teacher/model"

    async def test_an_unknown_version_to_inherit_from_has_its_pointer(self, service: Service) -> None:
        stage = {"name": "on", "student": {}, "train": {"steps": 20}, "inherit_from": "registry:ghost@1"}

        problem = assert_problem(await post(service, spec(stages=[stage])), 422, "unknown_model")

        assert (problem["errors"][0]["pointer"], problem["errors"][0]["value"]) == ("/stages/0/inherit_from", "registry:ghost@1")

    async def test_an_unknown_registry_teacher_of_several_has_its_pointer(self, service: Service) -> None:
        teachers = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "registry:ghost@1"}]

        problem = assert_problem(await post(service, spec(teacher=None, teachers=teachers)), 422, "unknown_model")

        assert (problem["errors"][0]["pointer"], problem["errors"][0]["value"]) == ("/teachers/1/model", "registry:ghost@1")

    @pytest.mark.parametrize("body", ["{not json", "", "[]", "3", '"text"', "null"])
    async def test_a_body_that_is_not_a_spec_is_refused(self, service: Service, body: str) -> None:
        response = await service.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

        assert response.status_code == 422
        assert response.json()["errors"]

    async def test_another_media_type_is_refused(self, service: Service) -> None:
        response = await service.http.post("/v1/jobs", content=b"name: x", headers={"content-type": "application/yaml"})

        problem = assert_problem(response, 422, "invalid_input")
        assert await service.items("/v1/jobs") == []
        assert problem["errors"]

    async def test_an_unpaired_surrogate_is_refused(self, service: Service) -> None:
        response = await service.http.post(
            "/v1/jobs", content=rb'{"name": "x", "labels": {"a": "\ud800"}, "data": {"train": {"shards": "x"}}, "nope\ud800": 1}',
            headers={"content-type": "application/json"},
        )

        assert response.status_code == 422

    async def test_a_clone_with_an_unknown_field_is_refused(self, service: Service) -> None:
        job = await service.submit()

        response = await service.http.post(f"/v1/jobs/{job['id']}/clone", json={"set": {"optimizer.lrr": 1}})

        problem = assert_problem(response, 422, "invalid_input")
        assert problem["errors"][0]["message"] == "unknown field; did you mean lr?"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("stages.9.train.steps", "stages has entries 0 to 1, not 9"),
            ("stages.first.name", "stages has entries 0 to 1, not first"),
            ("seed.of.it", "seed is 0, which has no fields; end the path there"),
            ("optimizer..lr", "write the path as optimizer.lr or stages.0.train.steps"),
            ("", "write the path as optimizer.lr or stages.0.train.steps"),
            ("a" + ".a" * 64, "has 65 parts, more than 64"),
        ],
    )
    async def test_an_invalid_path_of_a_clone_is_named_with_the_remedy(self, service: Service, path: str, message: str) -> None:
        job = await service.submit()

        response = await service.http.post(f"/v1/jobs/{job['id']}/clone", json={"set": {path: 1}})

        problem = assert_problem(response, 422, "invalid_input")
        assert problem["errors"] == [{"pointer": f"/set/{path}", "value": 1, "message": message}]
        assert len(await service.items("/v1/jobs")) == 1


@on_both_databases
class TestUnstorableText:
    @pytest.mark.parametrize("text", ["\x00", "\ud800", "a\x00b"])
    async def test_it_is_refused_or_stored(self, service: Service, text: str) -> None:
        body = str(spec(labels={"team": "@"})).replace("'", '"').replace("@", text.encode("unicode_escape").decode())
        body = body.replace("\\x00", "\\u0000")

        response = await service.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

        assert response.status_code in (201, 422)
        assert "traceback" not in response.text.lower()

    @pytest.mark.parametrize("name", ["%00", "%ed%a0%80", "a" * 5000])
    async def test_in_a_path_it_is_not_found(self, service: Service, name: str) -> None:
        response = await service.http.get(f"/v1/jobs/{name}")

        assert response.status_code in (404, 422)


class TestPlannerFailures:
    @pytest.fixture
    async def planned(self, start: Start) -> Service:
        """A service whose planner is a real process."""
        return await start(planner_command=FAKE_PLANNER)

    async def test_a_planner_that_dies_once_is_restarted(self, planned: Service) -> None:
        assert (await post(planned, spec(name="dies-once-a"))).status_code == 201

    async def test_a_spec_of_which_the_planner_dies_twice_is_refused_for_good(self, planned: Service) -> None:
        problem = assert_problem(await post(planned, spec(name="dies")), 422, "planner_died")

        assert problem["retryable"] is False
        assert (await post(planned, spec())).status_code == 201

    async def test_a_planner_that_does_not_start_makes_the_request_retryable(self, start: Start) -> None:
        service = await start(planner_command=[sys.executable, "-c", "raise SystemExit(3)"])

        response = await post(service, spec())

        assert_problem(response, 503, "planner_unavailable")
        assert response.headers["retry-after"] == "5"

    async def test_a_spec_that_takes_too_much_memory_is_refused_for_good(self, planned: Service) -> None:
        problem = assert_problem(await post(planned, spec(name="exhausts")), 422, "planner_memory")

        assert "TINYCLIP_PLANNER_MEMORY_BYTES" in problem["detail"]
        assert (await post(planned, spec())).status_code == 201

    async def test_an_internal_error_of_the_planner_costs_its_request_only(self, planned: Service) -> None:
        assert (await post(planned, spec())).status_code == 201
        process = planned.app.state.services.planner._processes[-1]
        pid = process._process.pid

        problem = assert_problem(await post(planned, spec(name="fails")), 500, "planner_failed")

        assert problem["retryable"] is False
        assert problem["errors"][0]["pointer"] == "/data/train/shards"
        assert (await post(planned, spec(name="next"))).status_code == 201
        assert process._process.pid == pid

    async def test_a_slow_spec_blocks_neither_other_projects_nor_more_than_a_few_of_its_own(self, start: Start) -> None:
        service = await start(planner_command=FAKE_PLANNER)
        planner = service.app.state.services.planner
        slow, quick = JobSpec.model_validate(spec(name="hangs")), JobSpec.model_validate(spec())
        slow_ones = [asyncio.create_task(planner.plan("slow", slow)) for _ in range(ADMITTED)]
        await asyncio.sleep(0)

        other = await asyncio.wait_for(planner.plan("other", quick), 15)
        with pytest.raises(TooManyRequests):
            await planner.plan("slow", slow)

        assert other.steps
        for task in slow_ones:
            task.cancel()
        await asyncio.gather(*slow_ones, return_exceptions=True)

    async def test_an_overflow_is_a_problem_with_retry_after(self, service: Service) -> None:
        service.planner.held = asyncio.Event()
        waiting = [asyncio.create_task(post(service, spec(name=f"job-{number}"))) for number in range(ADMITTED)]
        await eventually(lambda: service.planner.is_full())

        response = await post(service, spec(name="one-more"))

        service.planner.held.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {201}
        assert_problem(response, 429, "busy")
        assert response.headers["retry-after"] == "5"

    async def test_an_answer_to_another_question_is_not_accepted(self, planned: Service) -> None:
        assert_problem(await post(planned, spec(name="mumbles")), 422, "planner_died")

        assert (await post(planned, spec())).status_code == 201

    async def test_a_planner_that_hangs_times_out(self, planned: Service) -> None:
        assert (await post(planned, spec())).status_code == 201  # so that its start, slow on a busy machine, is not in the time
        process = planned.app.state.services.planner._processes[-1]
        process.timeout_s = 2.0

        problem = assert_problem(await post(planned, spec(name="hangs")), 422, "planner_timeout")

        assert problem["errors"][0]["pointer"] == "/data/train/shards"
        assert "reading the shards took longer than 2 s" in problem["detail"]
        process.timeout_s = 20.0
        assert (await post(planned, spec(name="next"))).status_code == 201

    async def test_a_planner_that_hangs_as_it_starts_makes_the_request_retryable(self, start: Start) -> None:
        hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
        service = await start(planner_command=hanging, planner_timeout_seconds=0.5)

        response = await post(service, spec())

        problem = assert_problem(response, 503, "planner_unavailable")
        assert "did not start within 0.5 s" in problem["detail"]
        assert response.headers["retry-after"] == "5"
