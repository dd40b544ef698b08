"""Evaluations: a request becomes a Ray job, the job's events become numbers, and a version shows them."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import ModelVersionRow
from tinyclip_server.orchestration.evaluations import reconcile

from tests.server.evaluation_requests import SCORES, STARTED, failed, finished, progress, request, tell
from tests.server.service import Service, on_both_databases

MODEL = "emoji-half"
TASK = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}


@pytest.fixture
async def service(service: Service) -> Service:
    await service.made(MODEL)
    return service


async def post(service: Service, key: str | None = None, **changes: Any) -> dict[str, Any]:
    body = {"model": f"{MODEL}@latest", "tasks": [TASK], **changes}
    answer = await service.http.post("/v1/evaluations", json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def get(service: Service, id: str) -> dict[str, Any]:
    answer = await service.http.get(f"/v1/evaluations/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


async def running(service: Service, **changes: Any) -> str:
    id = (await post(service, **changes))["id"]
    await round_(service)
    tell(service, id, STARTED)
    await round_(service)
    return str(id)


async def done(service: Service, *tasks: str, **changes: Any) -> dict[str, Any]:
    id = await running(service, tasks=[{**TASK, "name": name} for name in tasks])
    tell(service, id, finished(*tasks, **changes))
    await round_(service)
    return await get(service, id)


async def version(service: Service) -> dict[str, Any]:
    return (await service.http.get(f"/v1/models/{MODEL}/versions/1")).json()


class TestPost:
    async def test_is_made_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        made = await post(service, against="ViT-B-32/laion2b_s34b_b79k")
        await round_(service)

        assert (made["state"], made["model"], made["against"]) == ("queued", f"{MODEL}@1", "ViT-B-32/laion2b_s34b_b79k")
        submission = service.ray.submissions[-1]
        assert submission == f"tc-evaluation-{made['id']}-a1" == made["ray_submission_id"]
        arguments = f"--artifacts {service.artifacts} --evaluation {made['id']} --attempt 1"
        assert service.ray.entrypoints[submission].endswith(f"-m tinyclip_workers.jobs evaluation {arguments}")
        wanted = request(service, made["id"])
        assert wanted["model"]["source"] == {"model": f"local-dir:{service.artifacts}/models/{MODEL}/1", "pretrained": None}
        assert wanted["against"]["source"] == {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
        assert wanted["tasks"][0]["shards"] == "/data/wds_cars"

    @pytest.mark.parametrize("named", ["hf-hub:timm/ViT-B-16-SigLIP", "local-dir:/models/mine"])
    async def test_models_from_elsewhere_need_no_registry(self, service: Service, named: str) -> None:
        made = await post(service, model=named)
        await round_(service)

        assert made["model"] == named
        assert request(service, made["id"])["model"]["source"] == {"model": named, "pretrained": None}

    async def test_the_same_key_gives_the_first_answer_again(self, service: Service) -> None:
        first = await post(service, "k1")
        again = await post(service, "k1")
        other = await post(service, "k2")

        assert first == again
        assert other["id"] != first["id"]
        assert len((await service.http.get("/v1/evaluations")).json()["items"]) == 2

    async def test_what_is_odd_is_told(self, service: Service) -> None:
        made = await post(service, tasks=[{**TASK, "name": "odd"}])

        assert made["warnings"] == ["task odd reads shards oddly"]

    @pytest.mark.parametrize(
        ("changes", "code", "pointer", "says"),
        [
            ({"model": "nothing@1"}, "unknown_model", "/model", "ARCHITECTURE/TAG of open_clip"),
            ({"model": f"{MODEL}@7"}, "unknown_model", "/model", "it has versions 1"),
            ({"against": "registry:none"}, "unknown_model", "/against", "there is no model none"),
            ({"tasks": []}, "invalid_input", "/tasks", "at least 1 item"),
            ({"tasks": [{**TASK, "shard": "x"}]}, "invalid_input", "/tasks/0/shard", "did you mean shards?"),
            ({"tasks": [TASK, {**TASK, "shards": "/nowhere/a.tar"}]}, "impossible_evaluation", "/tasks/1/shards", "is not there"),
        ],
    )
    async def test_bad_input_is_refused_by_field_and_leaves_nothing(
        self, service: Service, changes: dict[str, Any], code: str, pointer: str, says: str
    ) -> None:
        answer = await service.http.post("/v1/evaluations", json={"model": MODEL, "tasks": [TASK], **changes})

        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["errors"][0]["pointer"]) == (422, code, pointer)
        assert says in problem["errors"][0]["message"]
        assert (await service.http.get("/v1/evaluations")).json()["items"] == []


class TestProgress:
    async def test_progress_and_numbers_are_shown(self, service: Service) -> None:
        id = await running(service)
        tell(service, id, progress(0.25))
        await round_(service)
        half_way = await get(service, id)
        tell(service, id, progress(None), finished("cars"))
        await round_(service)

        assert (half_way["state"], half_way["progress"], half_way["message"]) == ("running", 0.25, "1,234 samples")
        found = await get(service, id)
        assert (found["state"], found["progress"]) == ("succeeded", 1.0)
        assert found["results"] == {"cars": {"student": SCORES, "teacher": None}}
        assert found["finished_at"]

    async def test_what_failed_says_where_and_why(self, service: Service) -> None:
        id = await running(service)
        tell(service, id, failed("unreadable_data", "task cars has label 9", pointer="/tasks/0/classes", value="9"))
        await round_(service)

        found = await get(service, id)
        assert (found["state"], found["results"]) == ("failed", {})
        assert found["error"] == {
            "code": "unreadable_data", "message": "task cars has label 9", "pointer": "/tasks/0/classes", "value": "9",
        }

    async def test_a_job_that_dies_without_a_word_is_followed_by_another_up_to_three(self, service: Service) -> None:
        id = await running(service)
        for attempt in (1, 2, 3):
            service.ray.jobs[f"tc-evaluation-{id}-a{attempt}"] = RayJobStatus.FAILED
            await round_(service)
            await round_(service)

        found = await get(service, id)
        assert [name for name in service.ray.submissions if id in name] == [f"tc-evaluation-{id}-a{n}" for n in (1, 2, 3)]
        assert (found["state"], found["error"]["code"]) == ("failed", "attempt_lost")

    async def test_the_attempt_after_a_lost_one_succeeds(self, service: Service) -> None:
        id = await running(service)
        service.ray.jobs[f"tc-evaluation-{id}-a1"] = RayJobStatus.FAILED
        await round_(service)
        await round_(service)
        tell(service, id, finished("cars"))  # a late word of the first attempt, which nobody reads any more
        tell(service, id, finished("cars", top1=0.5), attempt=2)
        await round_(service)

        assert (await get(service, id))["results"]["cars"]["student"]["top1"] == 0.5

    async def test_an_end_that_ray_sees_first_is_told_by_its_events(self, service: Service) -> None:
        id = await running(service)
        service.ray.jobs[f"tc-evaluation-{id}-a1"] = RayJobStatus.FAILED
        tell(service, id, finished("cars"))
        await round_(service)

        assert (await get(service, id))["state"] == "succeeded"

    async def test_a_cluster_that_was_away_or_has_forgotten_gets_the_same_job(self, service: Service) -> None:
        service.ray.away = True
        id = (await post(service))["id"]
        await round_(service)
        service.ray.away = False
        await round_(service)
        service.ray.jobs.clear()
        await round_(service)
        await round_(service)

        assert [name for name in service.ray.submissions if id in name] == [f"tc-evaluation-{id}-a1"] * 2

    async def test_a_refused_job_says_why(self, service: Service) -> None:
        service.ray.refuses = "too large"
        id = (await post(service))["id"]
        await round_(service)

        found = await get(service, id)
        assert (found["state"], found["message"]) == ("failed", "Ray refused the evaluation: too large")


class TestTheVersion:
    async def test_shows_new_numbers_and_the_newest_of_a_task(self, service: Service) -> None:
        await done(service, "cars")
        newest = await done(service, "cars", top1=0.9)

        found = await version(service)
        assert found["evaluation"]["cars"]["student"]["top1"] == 0.9
        assert found["evaluation"]["emoji"]["student"]["top1"] == 0.4
        assert found["evaluated_by"] == {"cars": newest["id"]}

    async def test_keeps_what_training_has_measured_and_says_so(self, service: Service) -> None:
        found = await done(service, "emoji", "cars")

        assert found["results"]["emoji"]["student"]["top1"] == 0.6
        assert found["message"] == f"{MODEL}@1 keeps what its training has measured as emoji"
        assert (await version(service))["evaluation"]["emoji"] == {"student": {"top1": 0.4}, "teacher": {"top1": 0.5}}
        assert list((await version(service))["evaluated_by"]) == ["cars"]

    @pytest.mark.parametrize(("digest", "shown"), [("ab" * 32, True), ("cd" * 32, False)])
    async def test_shows_beside_them_only_its_own_teacher(self, service: Service, digest: str, shown: bool) -> None:
        async with service.app.state.services.db.write() as session:
            row = await session.get_one(ModelVersionRow, (MODEL, 1))
            row.document = {**row.document, "lineage": {"teacher": {"name": "ViT-B-32", "sha256": "ab" * 32}}}

        found = await done(service, "cars", teacher=digest)

        assert found["results"]["cars"]["teacher"]["top1"] == 0.7
        assert ((await version(service))["evaluation"]["cars"]["teacher"] is not None) is shown

    async def test_is_compared_by_them(self, service: Service) -> None:
        await done(service, "cars")

        compared = (await service.http.get("/v1/compare", params={"models": MODEL})).json()["models"][0]
        assert compared["evaluation"]["cars"]["top1"] == 0.6
        assert "cars" not in compared["teacher_evaluation"]


class TestDelete:
    async def test_removes_files_and_row_and_leaves_the_version_its_numbers(self, service: Service) -> None:
        found = await done(service, "cars")
        service.ray.jobs[found["ray_submission_id"]] = RayJobStatus.SUCCEEDED

        answer = await service.http.delete(f"/v1/evaluations/{found['id']}")
        await round_(service)

        assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
        assert (await service.http.get(f"/v1/evaluations/{found['id']}")).json()["code"] == "no_such_evaluation"
        assert not (service.artifacts / "evaluations" / found["id"]).exists()
        assert "cars" in (await version(service))["evaluation"]

    async def test_stops_one_under_way_first_and_an_end_that_comes_meanwhile_changes_nothing(self, service: Service) -> None:
        id = await running(service)
        job = service.ray.submissions[-1]
        service.ray.jobs[job] = RayJobStatus.RUNNING

        await service.http.delete(f"/v1/evaluations/{id}")
        tell(service, id, finished("cars"))
        await round_(service)
        while_it_stops = await get(service, id)
        service.ray.jobs[job] = RayJobStatus.STOPPED
        await round_(service)

        assert service.ray.stopped == [job]
        assert while_it_stops["state"] == "deleting"
        assert (await service.http.get(f"/v1/evaluations/{id}")).status_code == 404

    async def test_another_state_than_the_one_seen_is_kept(self, service: Service) -> None:
        id = await running(service)

        answer = await service.http.delete(f"/v1/evaluations/{id}", headers={"If-Match": '"0.queued-1"'})

        assert answer.status_code == 412


@on_both_databases
async def test_results_are_in_the_order_of_the_tasks(service: Service) -> None:
    tasks = [{**TASK, "name": name} for name in ("longer-name", "b", "a")]
    id = await running(service, tasks=tasks)
    tell(service, id, finished("longer-name", "b", "a"))
    await round_(service)

    assert list((await get(service, id))["results"]) == ["longer-name", "b", "a"]


@on_both_databases
async def test_lists_newest_first_by_model_and_state(service: Service) -> None:
    first = await done(service, "cars")
    second = await post(service, model="local-dir:/m")

    async def listed(**query: Any) -> list[str]:
        answer = await service.http.get("/v1/evaluations", params=query)
        return [item["id"] for item in answer.json()["items"]]

    one = (await service.http.get("/v1/evaluations", params={"page_size": 1})).json()
    assert await listed() == [second["id"], first["id"]]
    assert await listed(page_token=one["next_page_token"]) == [first["id"]]
    assert await listed(model=f"{MODEL}@1") == [first["id"]]
    assert await listed(state="queued") == [second["id"]]
