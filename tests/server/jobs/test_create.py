"""POST /v1/jobs: what is accepted, and what a bad spec is told."""

from typing import Any

import httpx
import pytest

from tests.server.documents import spec
from tests.server.service import FAKE_PLANNER, Service, Start, on_both_databases


async def post(service: Service, body: Any, **params: Any) -> httpx.Response:
    return await service.http.post("/v1/jobs", json=body, params=params)


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


class TestCreate:
    async def test_answers_with_the_queued_job_and_where_it_is(self, service: Service) -> None:
        answer = await post(service, spec())

        job = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
        assert answer.headers["etag"] == f'"{job["etag"]}"'
        assert (job["labels"], job["project"], job["priority"]) == ({"team": "search"}, "default", 0)
        assert job["spec"]["optimizer"]["lr"] == 1e-4
        assert job["progress"]["stages"] == 2

    async def test_validate_only_gives_the_plan_and_keeps_nothing(self, service: Service) -> None:
        answer = await post(service, spec(), validate_only=True)

        assert answer.status_code == 200
        assert answer.json()["steps"] == 20
        assert (await service.http.get("/v1/jobs")).json()["items"] == []

    async def test_a_registry_teacher_is_pinned_for_the_reader_and_a_path_for_the_worker(self, service: Service) -> None:
        await service.succeeded("big")

        worker = await service.started(teacher={"model": "registry:big@latest"})

        assert (await service.job(worker.job))["spec"]["teacher"]["model"] == "registry:big@1"
        assert worker.spec()["spec"]["teacher"]["model"] == f"local-dir:{service.artifacts}/models/big/1"

    async def test_each_registry_teacher_of_several_is_pinned(self, service: Service) -> None:
        await service.succeeded("big")
        teachers = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "registry:big@latest", "weight": 2}]

        worker = await service.started(teacher=None, teachers=teachers)

        kept, given = (await service.job(worker.job))["spec"]["teachers"], worker.spec()["spec"]["teachers"]
        assert [teacher["model"] for teacher in kept] == ["ViT-B-32", "registry:big@1"]
        assert [teacher["model"] for teacher in given] == ["ViT-B-32", f"local-dir:{service.artifacts}/models/big/1"]
        assert kept[1]["weight"] == given[1]["weight"] == 2

    async def test_a_clone_has_the_changes_asked_for(self, service: Service) -> None:
        job = await service.submit()

        answer = await service.http.post(
            f"/v1/jobs/{job['id']}/clone", json={"set": {"optimizer.lr": 0.5, "stages.1.train.steps": 7, "labels.team": "new"}}
        )

        clone = answer.json()
        assert answer.status_code == 201
        assert clone["id"] != job["id"]
        assert (clone["spec"]["optimizer"]["lr"], clone["spec"]["stages"][1]["train"]["steps"]) == (0.5, 7)
        assert clone["labels"] == {"team": "new"}


class TestBadInput:
    async def test_an_unknown_field_is_named_with_a_suggestion(self, service: Service) -> None:
        answer = await post(service, spec(optimiser={"lr": 1}))

        problem = assert_problem(answer, 422, "invalid_input")
        assert problem["errors"] == [
            {"pointer": "/optimiser", "value": {"lr": 1}, "message": "unknown field; did you mean optimizer?"}
        ]

    async def test_an_unknown_field_deep_inside_is_pointed_at(self, service: Service) -> None:
        body = spec()
        body["stages"][1]["student"]["image"]["widht"] = 3

        problem = assert_problem(await post(service, body), 422, "invalid_input")

        assert problem["errors"][0]["pointer"] == "/stages/1/student/image/widht"
        assert problem["errors"][0]["message"].endswith("did you mean width?")

    async def test_a_field_of_one_kind_of_task_is_pointed_at_without_the_kind(self, service: Service) -> None:
        task = {"name": "emoji", "kind": "zero_shot", "shards": "x.tar", "classes": ["a"], "template": ["{}"]}

        problem = assert_problem(await post(service, spec(evaluation={"tasks": [task]})), 422, "invalid_input")

        assert problem["errors"][0]["pointer"] == "/evaluation/tasks/0/template"
        assert "did you mean templates?" in problem["errors"][0]["message"]

    async def test_a_wrong_type_that_fits_no_branch_is_one_error(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(data={"train": {"shards": 7}})), 422, "invalid_input")

        assert [(error["pointer"], error["value"]) for error in problem["errors"]] == [("/data/train/shards", 7)]

    async def test_a_missing_field_is_named(self, service: Service) -> None:
        body = spec()
        del body["data"]["train"]["shards"]

        problem = assert_problem(await post(service, body), 422, "invalid_input")

        assert problem["errors"] == [{"pointer": "/data/train/shards", "value": None, "message": "this field is required"}]

    async def test_an_impossible_student_is_told_by_the_engine(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(name="impossible")), 422, "impossible_spec")

        assert problem["errors"][0]["pointer"] == "/stages/0/student/image/layers"
        assert problem["detail"] == "/stages/0/student/image/layers: the teacher has 1 layer; give at most 1"
        assert (await service.http.get("/v1/jobs")).json()["items"] == []

    async def test_an_unknown_registry_teacher_is_a_bad_field(self, service: Service) -> None:
        problem = assert_problem(await post(service, spec(teacher={"model": "registry:ghost@1"})), 422, "unknown_model")

        assert problem["errors"][0]["pointer"] == "/teacher/model"

    async def test_an_unknown_registry_teacher_of_several_is_named_by_its_place(self, service: Service) -> None:
        teachers = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "registry:ghost@1"}]

        problem = assert_problem(await post(service, spec(teacher=None, teachers=teachers)), 422, "unknown_model")

        assert (problem["errors"][0]["pointer"], problem["errors"][0]["value"]) == ("/teachers/1/model", "registry:ghost@1")

    @pytest.mark.parametrize("body", ["{not json", "", "[]", "3", '"text"', "null"])
    async def test_a_body_that_is_no_spec_is_refused(self, service: Service, body: str) -> None:
        answer = await service.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

        assert answer.status_code == 422
        assert answer.json()["errors"]

    async def test_a_body_of_another_kind_is_refused(self, service: Service) -> None:
        answer = await service.http.post("/v1/jobs", content=b"name: x", headers={"content-type": "application/yaml"})

        problem = assert_problem(answer, 422, "invalid_input")
        assert (await service.http.get("/v1/jobs")).json()["items"] == []
        assert problem["errors"]

    async def test_half_a_character_is_bad_input(self, service: Service) -> None:
        answer = await service.http.post(
            "/v1/jobs", content=rb'{"name": "x", "labels": {"a": "\ud800"}, "data": {"train": {"shards": "x"}}, "nope\ud800": 1}',
            headers={"content-type": "application/json"},
        )

        assert answer.status_code == 422

    async def test_a_clone_with_an_unknown_field_is_refused(self, service: Service) -> None:
        job = await service.submit()

        answer = await service.http.post(f"/v1/jobs/{job['id']}/clone", json={"set": {"optimizer.lrr": 1}})

        problem = assert_problem(answer, 422, "invalid_input")
        assert problem["errors"][0]["message"] == "unknown field; did you mean lr?"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("stages.9.train.steps", "stages has entries 0 to 1, not 9"),
            ("stages.first.name", "stages has entries 0 to 1, not first"),
            ("seed.of.it", "seed is 0, which has no fields; end the path there"),
            ("optimizer..lr", "write the path as optimizer.lr or stages.0.train.steps"),
            ("", "write the path as optimizer.lr or stages.0.train.steps"),
        ],
    )
    async def test_a_clones_bad_path_is_named_with_the_way_out(self, service: Service, path: str, message: str) -> None:
        job = await service.submit()

        answer = await service.http.post(f"/v1/jobs/{job['id']}/clone", json={"set": {path: 1}})

        problem = assert_problem(answer, 422, "invalid_input")
        assert problem["errors"] == [{"pointer": f"/set/{path}", "value": 1, "message": message}]
        assert len((await service.http.get("/v1/jobs")).json()["items"]) == 1


@on_both_databases
class TestWhatDatabasesCannotHold:
    @pytest.mark.parametrize("text", ["\x00", "\ud800", "a\x00b"])
    async def test_odd_characters_are_bad_input(self, service: Service, text: str) -> None:
        body = str(spec(labels={"team": "@"})).replace("'", '"').replace("@", text.encode("unicode_escape").decode())
        body = body.replace("\\x00", "\\u0000")

        answer = await service.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

        assert answer.status_code in (201, 422)
        assert "traceback" not in answer.text.lower()

    @pytest.mark.parametrize("name", ["%00", "%ed%a0%80", "a" * 5000])
    async def test_odd_names_in_a_path_are_not_found(self, service: Service, name: str) -> None:
        answer = await service.http.get(f"/v1/jobs/{name}")

        assert answer.status_code in (404, 422)


class TestPlannerTrouble:
    @pytest.fixture
    async def planned(self, start: Start) -> Service:
        """A service whose planner is a process of its own."""
        return await start(planner_command=FAKE_PLANNER)

    async def test_a_planner_that_died_once_is_started_again(self, planned: Service) -> None:
        assert (await post(planned, spec(name="dies-once-a"))).status_code == 201

    async def test_a_planner_that_keeps_dying_makes_the_request_retryable(self, planned: Service) -> None:
        answer = await post(planned, spec(name="dies"))

        problem = assert_problem(answer, 503, "planner_unavailable")
        assert problem["retryable"] is True
        assert answer.headers["retry-after"] == "5"
        assert (await post(planned, spec())).status_code == 201

    async def test_a_planner_that_answers_something_else_is_not_believed(self, planned: Service) -> None:
        problem = assert_problem(await post(planned, spec(name="mumbles")), 503, "planner_unavailable")

        assert problem["retryable"] is True
        assert (await post(planned, spec())).status_code == 201

    async def test_a_planner_that_hangs_is_given_up(self, start: Start) -> None:
        service = await start(planner_command=FAKE_PLANNER, planner_timeout_seconds=1.0)

        assert_problem(await post(service, spec(name="hangs")), 503, "planner_timeout")

        assert (await post(service, spec())).status_code == 201
