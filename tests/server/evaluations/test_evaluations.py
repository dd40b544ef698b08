"""Evaluations: a Ray job makes each, and its metrics are shown with it and with the model version."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import ModelVersionRow

from tests.server.events import (
    EVALUATION_STARTED,
    SCORES,
    evaluation_failed,
    evaluation_finished,
    evaluation_progress,
)
from tests.server.service import Service, on_both_databases

MODEL = "emoji-half"
EVALUATIONS = "/v1/evaluations"
TASK = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    return service


async def post(service: Service, key: str | None = None, **changes: Any) -> dict[str, Any]:
    body = {"model": f"{MODEL}@latest", "tasks": [TASK], **changes}
    return await service.call("POST", EVALUATIONS, body, status=201, key=key)


async def get(service: Service, id: str) -> dict[str, Any]:
    return await service.get(f"{EVALUATIONS}/{id}")


async def running(service: Service, **changes: Any) -> str:
    """Begin an evaluation and return its id."""
    id = (await post(service, **changes))["id"]
    await service.reconcile("evaluations")
    service.emit(EVALUATION_STARTED)
    await service.reconcile("evaluations")
    return str(id)


async def evaluated(service: Service, *tasks: str, **changes: Any) -> dict[str, Any]:
    """Make an evaluation that succeeds."""
    id = await running(service, tasks=[{**TASK, "name": name} for name in tasks])
    service.emit(evaluation_finished(*tasks, **changes))
    await service.reconcile("evaluations")
    return await get(service, id)


async def version(service: Service) -> dict[str, Any]:
    return await service.get(f"/v1/models/{MODEL}/versions/1")


class TestPost:
    async def test_is_made_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        created = await post(service, against="ViT-B-32/laion2b_s34b_b79k")
        await service.reconcile("evaluations")

        assert (created["state"], created["model"]) == ("queued", f"{MODEL}@1")
        assert created["against"] == "ViT-B-32/laion2b_s34b_b79k"
        submission = service.ray.submissions[-1]
        assert submission == f"tc-evaluation-{created['id']}-a1" == created["ray_submission_id"]
        arguments = f"--artifacts {service.artifacts} --evaluation {created['id']} --attempt 1"
        assert service.ray.entrypoints[submission].endswith(f"-m tinyclip_workers.jobs evaluation {arguments}")
        request = service.ray_request()
        assert request["model"]["source"] == {"model": f"registry:{MODEL}@1", "pretrained": None, "language": None}
        assert request["against"]["source"] == {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "language": None}
        assert request["tasks"][0]["shards"] == "/data/wds_cars"

    @pytest.mark.parametrize("model", ["hf-hub:timm/ViT-B-16-SigLIP", "local-dir:/models/mine"])
    async def test_external_models_need_no_registry(self, service: Service, model: str) -> None:
        created = await post(service, model=model)
        await service.reconcile("evaluations")

        assert created["model"] == model
        assert service.ray_request()["model"]["source"] == {"model": model, "pretrained": None, "language": None}

    async def test_the_same_key_returns_the_first_response(self, service: Service) -> None:
        first = await post(service, "k1")
        repeated = await post(service, "k1")
        other = await post(service, "k2")

        assert first == repeated
        assert other["id"] != first["id"]
        assert len(await service.items(EVALUATIONS)) == 2

    async def test_warnings_of_the_planner_are_shown(self, service: Service) -> None:
        created = await post(service, tasks=[{**TASK, "name": "odd"}])

        assert created["warnings"] == ["task odd reads shards oddly"]

    @pytest.mark.parametrize(
        ("changes", "code", "pointer", "message"),
        [
            ({"model": "nothing@1"}, "unknown_model", "/model", "ARCHITECTURE/TAG of open_clip"),
            ({"model": f"{MODEL}@7"}, "unknown_model", "/model", "it has versions 1"),
            ({"against": "registry:none"}, "unknown_model", "/against", "there is no model none"),
            ({"tasks": []}, "invalid_input", "/tasks", "at least 1 item"),
            ({"tasks": [{**TASK, "shard": "x"}]}, "invalid_input", "/tasks/0/shard", "did you mean shards?"),
            ({"tasks": [TASK, {**TASK, "shards": "/nowhere/a.tar"}]}, "impossible_evaluation", "/tasks/1/shards", "is not there"),
        ],
    )
    async def test_invalid_input_is_refused_by_field_without_an_effect(
        self, service: Service, changes: dict[str, Any], code: str, pointer: str, message: str
    ) -> None:
        problem = await service.call("POST", EVALUATIONS, {"model": MODEL, "tasks": [TASK], **changes}, status=422)

        assert (problem["code"], problem["errors"][0]["pointer"]) == (code, pointer)
        assert message in problem["errors"][0]["message"]
        assert await service.items(EVALUATIONS) == []


class TestProgress:
    async def test_progress_and_metrics_are_shown(self, service: Service) -> None:
        id = await running(service)
        service.emit(evaluation_progress(0.25))
        await service.reconcile("evaluations")
        meanwhile = await get(service, id)
        service.emit(evaluation_progress(None), evaluation_finished("cars"))
        await service.reconcile("evaluations")

        assert (meanwhile["state"], meanwhile["progress"], meanwhile["message"]) == ("running", 0.25, "1,234 samples")
        evaluation = await get(service, id)
        assert (evaluation["state"], evaluation["progress"]) == ("succeeded", 1.0)
        assert evaluation["results"] == {"cars": {"student": SCORES, "teacher": None}}
        assert evaluation["finished_at"]

    async def test_a_failure_has_the_field_and_the_reason(self, service: Service) -> None:
        id = await running(service)
        service.emit(evaluation_failed("unreadable_data", "task cars has label 9", pointer="/tasks/0/classes", value="9"))
        await service.reconcile("evaluations")

        evaluation = await get(service, id)
        assert (evaluation["state"], evaluation["results"]) == ("failed", {})
        assert evaluation["error"] == {
            "code": "unreadable_data", "message": "task cars has label 9", "pointer": "/tasks/0/classes", "value": "9",
        }

    async def test_a_lost_job_is_retried_up_to_two_times(self, service: Service) -> None:
        id = await running(service)
        for attempt in (1, 2, 3):
            service.ray.jobs[f"tc-evaluation-{id}-a{attempt}"] = RayJobStatus.FAILED
            await service.reconcile("evaluations", 2)

        evaluation = await get(service, id)
        assert service.ray.submissions == [f"tc-evaluation-{id}-a{n}" for n in (1, 2, 3)]
        assert (evaluation["state"], evaluation["error"]["code"]) == ("failed", "attempt_lost")

    async def test_the_attempt_after_a_lost_one_succeeds(self, service: Service) -> None:
        id = await running(service)
        service.ray.jobs[f"tc-evaluation-{id}-a1"] = RayJobStatus.FAILED
        await service.reconcile("evaluations", 2)
        # A late event of the lost attempt is not read.
        service.emit(evaluation_finished("cars"), submission=f"tc-evaluation-{id}-a1")
        service.emit(evaluation_finished("cars", top1=0.5), submission=f"tc-evaluation-{id}-a2")
        await service.reconcile("evaluations")

        assert (await get(service, id))["results"]["cars"]["student"]["top1"] == 0.5

    async def test_the_final_event_outweighs_the_status_of_ray(self, service: Service) -> None:
        id = await running(service)
        service.ray.jobs[f"tc-evaluation-{id}-a1"] = RayJobStatus.FAILED
        service.emit(evaluation_finished("cars"))
        await service.reconcile("evaluations")

        assert (await get(service, id))["state"] == "succeeded"

    async def test_a_cluster_that_was_unavailable_or_restarted_gets_the_same_job(self, service: Service) -> None:
        service.ray.unavailable = True
        id = (await post(service))["id"]
        await service.reconcile("evaluations")
        service.ray.unavailable = False
        await service.reconcile("evaluations")
        service.ray.jobs.clear()
        await service.reconcile("evaluations", 2)

        assert service.ray.submissions == [f"tc-evaluation-{id}-a1"] * 2

    async def test_a_refused_job_has_the_reason(self, service: Service) -> None:
        service.ray.refusal_reason = "too large"
        id = (await post(service))["id"]
        await service.reconcile("evaluations")

        evaluation = await get(service, id)
        assert (evaluation["state"], evaluation["message"]) == ("failed", "Ray refused the evaluation: too large")


class TestVersion:
    async def test_it_shows_the_newest_metrics_of_each_task(self, service: Service) -> None:
        await evaluated(service, "cars")
        newest = await evaluated(service, "cars", top1=0.9)

        shown = await version(service)
        assert shown["evaluation"]["cars"]["student"]["top1"] == 0.9
        assert shown["evaluation"]["emoji"]["student"]["top1"] == 0.4
        assert shown["evaluated_by"] == {"cars": newest["id"]}

    async def test_it_keeps_the_metrics_of_its_training_and_the_evaluation_reports_that(self, service: Service) -> None:
        evaluation = await evaluated(service, "emoji", "cars")

        assert evaluation["results"]["emoji"]["student"]["top1"] == 0.6
        assert evaluation["message"] == f"{MODEL}@1 keeps what its training has measured as emoji"
        assert (await version(service))["evaluation"]["emoji"] == {"student": {"top1": 0.4}, "teacher": {"top1": 0.5}}
        assert list((await version(service))["evaluated_by"]) == ["cars"]

    @pytest.mark.parametrize(("digest", "shown"), [("ab" * 32, True), ("cd" * 32, False)])
    async def test_it_shows_only_metrics_of_its_own_teacher_as_the_teachers(
        self, service: Service, digest: str, shown: bool
    ) -> None:
        async with service.app.state.services.db.write() as session:
            row = await session.get_one(ModelVersionRow, (MODEL, 1))
            row.document = {**row.document, "lineage": {"teacher": {"name": "ViT-B-32", "sha256": "ab" * 32}}}

        evaluation = await evaluated(service, "cars", teacher=digest)

        assert evaluation["results"]["cars"]["teacher"]["top1"] == 0.7
        assert ((await version(service))["evaluation"]["cars"]["teacher"] is not None) is shown

    async def test_a_comparison_includes_them(self, service: Service) -> None:
        await evaluated(service, "cars")

        compared = (await service.get(f"/v1/compare?models={MODEL}"))["models"][0]
        assert compared["evaluation"]["cars"]["top1"] == 0.6
        assert "cars" not in compared["teacher_evaluation"]


class TestDelete:
    async def test_it_removes_files_and_row_and_the_version_keeps_the_metrics(self, service: Service) -> None:
        evaluation = await evaluated(service, "cars")
        service.ray.jobs[evaluation["ray_submission_id"]] = RayJobStatus.SUCCEEDED

        deleting = await service.call("DELETE", f"{EVALUATIONS}/{evaluation['id']}", status=202)
        await service.reconcile("evaluations")

        assert deleting["state"] == "deleting"
        problem = await service.call("GET", f"{EVALUATIONS}/{evaluation['id']}", status=404)
        assert problem["code"] == "no_such_evaluation"
        assert not (service.artifacts / "evaluations" / evaluation["id"]).exists()
        assert "cars" in (await version(service))["evaluation"]

    async def test_it_stops_the_job_first_whose_success_meanwhile_is_ignored(self, service: Service) -> None:
        id = await running(service)
        job = service.ray.submissions[-1]
        service.ray.jobs[job] = RayJobStatus.RUNNING

        await service.http.delete(f"{EVALUATIONS}/{id}")
        service.emit(evaluation_finished("cars"))
        await service.reconcile("evaluations")
        meanwhile = await get(service, id)
        service.ray.jobs[job] = RayJobStatus.STOPPED
        await service.reconcile("evaluations")

        assert service.ray.stopped == [job]
        assert meanwhile["state"] == "deleting"
        assert (await service.http.get(f"{EVALUATIONS}/{id}")).status_code == 404

    async def test_another_state_than_that_of_if_match_is_kept(self, service: Service) -> None:
        id = await running(service)

        response = await service.http.delete(f"{EVALUATIONS}/{id}", headers={"If-Match": '"0.queued-1"'})

        assert response.status_code == 412


@on_both_databases
async def test_results_are_in_the_order_of_the_tasks(service: Service) -> None:
    evaluation = await evaluated(service, "longer-name", "b", "a")

    assert list(evaluation["results"]) == ["longer-name", "b", "a"]


@on_both_databases
async def test_the_list_is_newest_first_and_filtered_by_model_and_state(service: Service) -> None:
    first = await evaluated(service, "cars")
    second = await post(service, model="local-dir:/m")

    async def listed(**query: Any) -> list[str]:
        return [item["id"] for item in await service.items(EVALUATIONS, **query)]

    token = (await service.get(f"{EVALUATIONS}?page_size=1"))["next_page_token"]
    assert await listed() == [second["id"], first["id"]]
    assert await listed(page_token=token) == [first["id"]]
    assert await listed(model=f"{MODEL}@1") == [first["id"]]
    assert await listed(state="queued") == [second["id"]]
