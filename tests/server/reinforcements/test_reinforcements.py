"""Reinforcements: a Ray job stores a teacher's embeddings of a version, which jobs then train on."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.datasets.pairs import EMOJI, register
from tests.server.documents import spec
from tests.server.events import reinforcement_finished, reinforcement_progress
from tests.server.service import Service, Start, on_both_databases

REINFORCEMENTS = f"{EMOJI}/versions/1/reinforcements"
TEACHER = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "language": None}


@pytest.fixture
async def service(service: Service) -> Service:
    await register(service)
    return service


async def post(service: Service, *, key: str | None = None, **changes: Any) -> dict[str, Any]:
    return await service.call("POST", REINFORCEMENTS, {"teacher": TEACHER, **changes}, status=202, key=key)


async def get(service: Service, id: str) -> dict[str, Any]:
    return await service.get(f"{REINFORCEMENTS}/{id}")


async def reinforced(service: Service, **changes: Any) -> str:
    """Make a reinforcement, and return its id."""
    id = str((await post(service, **changes))["id"])
    await service.reconcile("reinforcements")
    service.emit(reinforcement_finished("emoji", 1, id))
    await service.reconcile("reinforcements")
    assert (await get(service, id))["state"] == "succeeded"
    return id


def folder_of(service: Service, id: str) -> Path:
    return service.artifacts / "datasets/emoji/1/reinforcements" / id


def on(id: str) -> dict[str, Any]:
    """Return the data of a spec."""
    return {"train": {"dataset": "emoji@1", "reinforcement": id}}


class TestPost:
    async def test_is_made_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        made = await post(service, augmentations=3)
        await service.reconcile("reinforcements")

        assert (made["state"], made["dataset"], made["version"], made["augmentations"]) == ("queued", "emoji", 1, 3)
        assert made["teachers"] == ["ViT-B-32/laion2b_s34b_b79k"]
        assert service.ray.submissions[-1] == f"tc-reinforcement-{made['id']}-a1"
        arguments = f"--artifacts {service.artifacts} --dataset emoji --version 1 --reinforcement {made['id']} --attempt 1"
        assert service.ray.entrypoints[service.ray.submissions[-1]].endswith(f"tinyclip_workers.jobs reinforcement {arguments}")
        request = service.ray_request()
        assert (request["id"], request["dataset"], request["version"], request["attempt"]) == (made["id"], "emoji", 1, 1)
        assert request["request"]["teacher"] == TEACHER

    async def test_an_alias_leads_to_the_version(self, service: Service) -> None:
        await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})

        response = await service.http.post(f"{EMOJI}/versions/best/reinforcements", json={"teacher": TEACHER})

        assert response.headers["location"] == f"{REINFORCEMENTS}/{response.json()['id']}"

    async def test_the_versions_of_registered_teachers_are_resolved(self, service: Service) -> None:
        await service.register_model("big")
        teachers = [{"model": "registry:big@latest"}, {**TEACHER, "weight": 2}]

        made = await post(service, teacher=None, teachers=teachers)

        assert made["teachers"] == ["registry:big@1", "ViT-B-32/laion2b_s34b_b79k"]

    async def test_an_equal_one_is_returned_and_another_one_is_made(self, service: Service) -> None:
        first, again, other = await post(service), await post(service), await post(service, augmentations=2)

        assert first["id"] == again["id"] != other["id"]

    async def test_the_same_key_returns_the_first_response(self, service: Service) -> None:
        first = await post(service, key="k")
        await service.reconcile("reinforcements")
        service.emit(reinforcement_progress("1 of 2 shards", 0.5))
        await service.reconcile("reinforcements")

        assert await post(service, key="k") == first

    @pytest.mark.parametrize(
        ("body", "pointer", "message"),
        [
            ({}, "", "give either teacher or teachers"),
            ({"teacher": TEACHER, "teachers": [TEACHER]}, "", "give either teacher or teachers"),
            ({"teacher": {"model": "registry:none@1"}}, "/teacher/model", "there is no model none"),
            ({"teachers": [TEACHER, {"model": "registry:none@1"}]}, "/teachers/1/model", "there is no model none"),
            ({"teacher": TEACHER, "augmentations": 0}, "/augmentations", "greater than or equal to 1"),
            ({"teacher": TEACHER, "dtype": "int4"}, "/dtype", "'bf16'"),
        ],
    )
    async def test_invalid_input_is_refused_by_field(
        self, service: Service, body: dict[str, Any], pointer: str, message: str
    ) -> None:
        problem = await service.call("POST", REINFORCEMENTS, body, status=422)

        assert problem["errors"][0]["pointer"] == pointer
        assert message in problem["errors"][0]["message"]
        assert await service.items(REINFORCEMENTS) == []

    async def test_a_teacher_outside_the_data_roots_is_refused(self, start: Start) -> None:
        service = await start(data_roots=["s3://bucket"])
        await register(service)

        problem = await service.call("POST", REINFORCEMENTS, {"teacher": {"model": "local-dir:/etc"}}, status=422)

        assert (problem["code"], problem["errors"][0]["pointer"]) == ("outside_data_roots", "/teacher/model")

    @pytest.mark.parametrize("path", ["/v1/datasets/none/versions/1", f"{EMOJI}/versions/9"])
    async def test_a_missing_version_is_not_found(self, service: Service, path: str) -> None:
        assert (await service.http.post(f"{path}/reinforcements", json={"teacher": TEACHER})).status_code == 404


class TestDryRun:
    async def test_it_returns_the_cost_without_an_effect(self, service: Service) -> None:
        body = {"teacher": TEACHER, "augmentations": 3, "dry_run": True}

        cost = await service.call("POST", REINFORCEMENTS, body)

        assert (cost["views"], cost["seconds"], cost["epochs_to_pay"]) == (300, 7.5, 2.5)
        assert await service.items(REINFORCEMENTS) == []

    async def test_an_error_of_the_engine_names_the_field(self, service: Service) -> None:
        body = {"teacher": {"model": "ViT-B-23"}, "dry_run": True}

        problem = await service.call("POST", REINFORCEMENTS, body, status=422)

        assert (problem["code"], problem["errors"][0]["pointer"]) == ("impossible_reinforcement", "/teacher/model")


class TestEvents:
    async def test_progress_and_sizes_are_shown(self, service: Service) -> None:
        id = (await post(service))["id"]
        await service.reconcile("reinforcements")
        service.emit(reinforcement_progress("1 of 2 shards", 0.5))
        await service.reconcile("reinforcements")
        running = await get(service, id)
        service.emit(reinforcement_finished("emoji", 1, id))
        await service.reconcile("reinforcements")

        assert (running["state"], running["progress"], running["message"]) == ("running", 0.5, "1 of 2 shards")
        done = await get(service, id)
        assert (done["state"], done["progress"]) == ("succeeded", 1.0)
        assert (done["views"], done["texts"], done["bytes"]) == (450, 80, 12_345)
        assert done["finished_at"] is not None

    async def test_a_lost_job_is_retried_up_to_two_times(self, service: Service) -> None:
        id = (await post(service))["id"]
        for _ in range(3):
            await service.reconcile("reinforcements")
            service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
            await service.reconcile("reinforcements")

        failed = await get(service, id)
        assert [name.rpartition("-a")[2] for name in service.ray.submissions[1:]] == ["1", "2", "3"]
        assert (failed["state"], failed["error"]["code"]) == ("failed", "attempt_lost")
        assert failed["message"].endswith("POST it again to continue")

    async def test_a_failed_one_continues_on_request_as_the_next_attempt(self, service: Service) -> None:
        id = (await post(service))["id"]
        await service.reconcile("reinforcements")
        where = {"pointer": "/teacher/model", "value": "ViT-B-32"}
        service.emit({"type": "reinforcement.failed", "message": "no weights", "data": {"code": "bad_teacher", **where}})
        await service.reconcile("reinforcements")
        failed = await get(service, id)

        again = await post(service)
        await service.reconcile("reinforcements")

        assert failed["error"] == {"code": "bad_teacher", "message": "no weights", **where}
        assert (again["id"], again["state"], again["error"]) == (id, "queued", None)
        assert service.ray.submissions[-1] == f"tc-reinforcement-{id}-a2"


class TestDelete:
    async def test_the_job_is_stopped_before_the_files_are_removed(self, service: Service) -> None:
        id = await reinforced(service)
        submission = service.ray.submissions[-1]
        service.ray.jobs[submission] = RayJobStatus.RUNNING

        deleting = await service.call("DELETE", f"{REINFORCEMENTS}/{id}", status=202)
        refused = await service.call("POST", REINFORCEMENTS, {"teacher": TEACHER}, status=409)
        await service.reconcile("reinforcements")
        existed = folder_of(service, id).exists()
        service.ray.jobs[submission] = RayJobStatus.STOPPED
        await service.reconcile("reinforcements")

        assert (deleting["state"], refused["code"], existed) == ("deleting", "reinforcement_deleting", True)
        assert not folder_of(service, id).exists()
        problem = await service.call("GET", f"{REINFORCEMENTS}/{id}", status=404)
        assert problem["detail"] == f"emoji@1 has no reinforcement {id}; it has none"

    @pytest.mark.parametrize("path", [EMOJI, f"{EMOJI}/versions/1"])
    async def test_a_data_set_with_reinforcements_is_not_deleted(self, service: Service, path: str) -> None:
        id = await reinforced(service)

        refused = await service.call("DELETE", path, status=409)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED
        await service.call("DELETE", f"{REINFORCEMENTS}/{id}", status=202)
        await service.reconcile("reinforcements")
        accepted = await service.http.delete(path)

        assert (refused["code"], id in refused["detail"], accepted.is_success) == ("dataset_in_use", True, True)

    @on_both_databases
    async def test_not_while_a_job_trains_on_it(self, service: Service) -> None:
        id = await reinforced(service)
        job = await service.submit(data=on(id))

        refused = await service.call("DELETE", f"{REINFORCEMENTS}/{id}", status=409)
        await service.call("POST", f"/v1/jobs/{job['id']}/cancel", status=202)

        assert (refused["code"], job["id"] in refused["detail"]) == ("reinforcement_in_use", True)
        assert (await service.http.delete(f"{REINFORCEMENTS}/{id}")).status_code == 202

    async def test_a_stale_condition_is_refused(self, service: Service) -> None:
        id = await reinforced(service)

        stale = await service.http.delete(f"{REINFORCEMENTS}/{id}", headers={"If-Match": '"0.queued-1"'})

        assert stale.status_code == 412


class TestJobs:
    async def test_a_job_names_a_complete_reinforcement_of_its_version(self, service: Service) -> None:
        id = await reinforced(service)

        worker = await service.started(data=on(id))

        assert worker.spec()["spec"]["data"]["train"]["reinforcement"] == id

    async def test_one_that_is_not_complete_is_refused(self, service: Service) -> None:
        id = (await post(service))["id"]

        problem = await service.call("POST", "/v1/jobs", spec(data=on(id)), status=422)

        [error] = problem["errors"]
        assert (problem["code"], error["pointer"], error["value"]) == ("unknown_reinforcement", "/data/train/reinforcement", id)
        assert error["message"] == "is queued; those that can be used are none yet"

    async def test_one_of_another_version_is_refused_with_those_of_this_one(self, service: Service) -> None:
        id = await reinforced(service)
        await register(service)
        data = {"train": {"dataset": "emoji@2", "reinforcement": id}}

        problem = await service.call("POST", "/v1/jobs", spec(data=data), status=422)

        assert problem["errors"][0]["message"] == "is none of emoji@2; those that can be used are none yet"

    async def test_it_needs_a_data_set(self, service: Service) -> None:
        data = {"train": {"shards": "/a.tar", "reinforcement": "reinf_aaaaaaaaaaaaaaaa"}}

        problem = await service.call("POST", "/v1/jobs", spec(data=data), status=422)

        assert "a reinforcement belongs to a data set" in problem["errors"][0]["message"]


@on_both_databases
async def test_reinforcements_are_listed_newest_first(service: Service) -> None:
    ids = [(await post(service, augmentations=count))["id"] for count in (1, 2, 3)]

    first = (await service.http.get(REINFORCEMENTS, params={"page_size": 2})).json()
    rest = await service.items(REINFORCEMENTS, page_token=first["next_page_token"])

    assert [each["id"] for each in [*first["items"], *rest]] == ids[::-1]
