"""Data sets: a Ray job registers each, and commits versions, to which aliases point."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.paths import dataset_folder
from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.datasets.pairs import EMOJI, NAME, SHARDS, body, get, lose_jobs, number_of, put, register
from tests.server.events import dataset_failed, dataset_finished, dataset_progress
from tests.server.service import Service, Start, on_both_databases


def submission(version: int, attempt: int) -> str:
    return f"tc-dataset-{NAME}-v{version}-a{attempt}"


class TestPut:
    async def test_is_registered_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        dataset = await put(service)
        await service.reconcile("datasets")

        assert (dataset["state"], dataset["latest"], dataset["versions"], dataset["progress"]) == ("registering", None, [], 0.0)
        assert service.ray.submissions == [submission(1, 1)]
        arguments = f"--artifacts {service.artifacts} --dataset emoji --version 1 --attempt 1"
        assert service.ray.entrypoints[submission(1, 1)].endswith(f"-m tinyclip_workers.jobs dataset {arguments}")
        request = service.ray_request()
        assert (request["name"], request["version"], request["attempt"], request["previous"]) == (NAME, 1, 1, None)
        assert request["request"]["source"]["shards"] == SHARDS
        assert request["request"]["holdout"] == 0.05

    async def test_repeated_during_the_registration_it_is_a_no_op(self, service: Service) -> None:
        for _ in range(2):
            await put(service)
            await service.reconcile("datasets")

        assert service.ray.submissions == [submission(1, 1)]

    async def test_another_body_during_the_registration_begins_one_of_the_next_version(self, service: Service) -> None:
        await put(service)
        await service.reconcile("datasets")
        await put(service, holdout=0.2)
        await service.reconcile("datasets")

        assert service.ray.submissions == [submission(1, 1), submission(2, 1)]
        assert (service.ray_request()["version"], service.ray_request()["request"]["holdout"]) == (2, 0.2)

    async def test_repeated_after_a_success_it_compares_with_the_newest_version(self, service: Service) -> None:
        await register(service)
        await put(service)
        await service.reconcile("datasets")
        request = service.ray_request()
        service.emit({"type": "dataset.finished", "message": "equal to version 1", "data": {"unchanged": True}})
        await service.reconcile("datasets")

        dataset = await get(service)
        assert (request["version"], request["previous"]) == (2, "cd" * 32)
        assert (dataset["state"], dataset["versions"], dataset["message"]) == ("ready", [1], "equal to version 1")

    async def test_with_another_teacher_the_same_data_gets_a_new_version(self, service: Service) -> None:
        await register(service)
        await put(service, teacher={"model": "ViT-B-32", "pretrained": "openai"})
        await service.reconcile("datasets")

        assert (service.ray_request()["version"], service.ray_request()["previous"]) == (2, None)

    async def test_the_version_of_a_registered_teacher_is_resolved(self, service: Service) -> None:
        await service.register_model("emoji-half")
        await service.call("PUT", "/v1/models/emoji-half/aliases/best", {"version": 1})
        await put(service, teacher={"model": "registry:emoji-half@best"})
        await service.reconcile("datasets")

        assert service.ray_request()["request"]["teacher"]["model"] == "registry:emoji-half@1"

    @pytest.mark.parametrize(
        ("changes", "pointer", "message"),
        [
            ({"source": {"shards": []}}, "/source/shards", "name at least one shard"),
            ({"source": {"shards": ["/nowhere/{0..3}.tar"]}}, "/source/shards/0", "/nowhere/0.tar does not exist"),
            ({"source": {"shards": "a.tar"}}, "/source/shards", "is a relative path"),
            ({"source": {"captions": "/nowhere/more.parquet"}}, "/source/captions", "does not exist; check the path"),
            ({"source": {"caption": "txt"}}, "/source/caption", "did you mean captions?"),
            ({"source": {"where": {"agreement": {"min": 0.2}}}}, "", "is measured by a teacher; give one"),
            ({"source": {"where": {"width": {"min": 5}}}}, "/source/where", "width is not measured"),
            ({"holdout": 1.0}, "/holdout", "less than 1"),
            ({"teacher": {"model": "registry:none@1"}}, "/teacher/model", "there is no model none"),
            ({"tasks": [{"name": "x", "kind": "retrieval"}]}, "/tasks/0/shards", "this field is required"),
        ],
    )
    async def test_invalid_input_is_refused_by_field_without_an_effect(
        self, service: Service, changes: dict[str, Any], pointer: str, message: str
    ) -> None:
        problem = await service.call("PUT", EMOJI, body(**changes), status=422)

        assert problem["errors"][0]["pointer"] == pointer
        assert message in problem["errors"][0]["message"]
        assert await service.items("/v1/datasets") == []

    async def test_addresses_outside_the_data_roots_are_refused_by_field(self, start: Start, tmp_path: Path) -> None:
        service = await start(data_roots=[str(tmp_path / "pairs")])
        task = {"name": "cars", "kind": "retrieval", "shards": "/etc/b.tar"}
        source = {"shards": "/etc/a.tar", "captions": "/etc/c.parquet"}
        teacher = {"model": "local-dir:/etc"}

        problem = await service.call("PUT", EMOJI, body(source=source, tasks=[task], teacher=teacher), status=422)

        assert problem["code"] == "outside_data_roots"
        pointers = {error["pointer"] for error in problem["errors"]}
        assert pointers == {"/source/shards", "/source/captions", "/teacher/model", "/tasks/0/shards"}


class TestEvents:
    async def test_progress_and_the_version_are_shown(self, service: Service) -> None:
        await put(service)
        await service.reconcile("datasets")
        service.emit(dataset_progress("3 of 4 shards", 0.75))
        await service.reconcile("datasets")
        running = await get(service)
        service.emit(dataset_finished(NAME, 1))
        await service.reconcile("datasets")

        assert (running["state"], running["progress"], running["message"]) == ("registering", 0.75, "3 of 4 shards")
        ready = await get(service)
        assert (ready["state"], ready["progress"], ready["latest"]) == ("ready", 1.0, 1)
        assert ready["message"] == "90 pairs"

    async def test_a_failure_names_the_field_and_the_next_request_continues(self, service: Service) -> None:
        await put(service)
        await service.reconcile("datasets")
        where = {"pointer": "/source/shards", "value": SHARDS}
        service.emit(dataset_failed("no_samples", "no shard has samples", **where))
        await service.reconcile("datasets")
        failed = await get(service)

        again = await put(service)
        await service.reconcile("datasets")

        assert failed["state"] == "failed"
        assert failed["error"] == {"code": "no_samples", "message": "no shard has samples", **where}
        assert (again["state"], again["error"], number_of(again)) == ("registering", None, 1)
        assert service.ray.submissions == [submission(1, 1), submission(1, 4)]

    async def test_earlier_versions_are_kept_after_a_failure(self, service: Service) -> None:
        await register(service)
        await put(service, holdout=0.2)
        await service.reconcile("datasets")
        service.emit(dataset_failed("no_samples", "no shard has samples"))
        await service.reconcile("datasets")

        dataset = await get(service)
        assert (dataset["state"], dataset["versions"], dataset["holdout"]) == ("failed", [1], 0.2)

    async def test_a_lost_job_is_retried_up_to_two_times(self, service: Service) -> None:
        await put(service)

        states = await lose_jobs(service, 3)
        again = await put(service)

        assert states == ["registering", "registering", "failed"]
        assert service.ray.submissions == [submission(1, attempt) for attempt in (1, 2, 3)]
        assert again["ray_submission_id"] == submission(1, 4)

    async def test_a_lost_job_fails_with_the_remedy(self, service: Service) -> None:
        await put(service)
        await lose_jobs(service, 3)

        error = (await get(service))["error"]
        assert error["code"] == "attempt_lost"
        assert error["message"].endswith("PUT it again to continue")


class TestAliases:
    async def test_an_alias_is_set_changed_and_removed(self, service: Service) -> None:
        await register(service)
        await register(service, digest="ef" * 32)

        first = await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
        changed = await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 2})
        found = await service.get(f"{EMOJI}/versions/best")
        removed = await service.http.delete(f"{EMOJI}/aliases/best")

        assert (first["aliases"], changed["aliases"]) == ({"best": 1}, {"best": 2})
        assert (found["version"], found["aliases"]) == (2, ["best"])
        assert (removed.status_code, (await get(service))["aliases"]) == (204, {})

    @pytest.mark.parametrize(
        ("method", "alias", "version", "status", "code"),
        [
            ("PUT", "best", 9, 404, "no_such_version"),
            ("PUT", "latest", 1, 422, "invalid_input"),
            ("PUT", "1st", 1, 422, "invalid_input"),
            ("DELETE", "best", 1, 404, "no_such_alias"),
        ],
    )
    async def test_what_is_refused(
        self, service: Service, method: str, alias: str, version: int, status: int, code: str
    ) -> None:
        await register(service)

        problem = await service.call(method, f"{EMOJI}/aliases/{alias}", {"version": version}, status=status)

        assert problem["code"] == code


class TestDelete:
    async def test_the_job_is_stopped_before_the_files_and_the_row_are_removed(self, service: Service) -> None:
        await register(service)
        await put(service, holdout=0.2)
        await service.reconcile("datasets")
        running = service.ray.submissions[-1]
        service.ray.jobs[running] = RayJobStatus.RUNNING
        folder = service.artifacts / dataset_folder(NAME)

        deleting = await service.call("DELETE", EMOJI, status=202)
        refused = await service.call("PUT", EMOJI, body(), status=409)
        await service.reconcile("datasets")
        exists_meanwhile = (folder / "1").exists()
        service.ray.jobs[running] = RayJobStatus.STOPPED
        await service.reconcile("datasets")

        assert (deleting["state"], refused["code"], exists_meanwhile) == ("deleting", "dataset_deleting", True)
        assert service.ray.stopped == [running]
        assert not folder.exists()
        assert (await service.http.get(EMOJI)).status_code == 404

    async def test_the_numbers_of_a_deleted_data_set_are_not_used_again(self, service: Service) -> None:
        await register(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED
        await service.call("DELETE", EMOJI, status=202)
        await service.reconcile("datasets")

        again = await put(service)

        assert again["ray_submission_id"] == submission(2, 1)

    @on_both_databases
    async def test_not_while_a_job_trains_on_it(self, service: Service) -> None:
        await register(service)
        job = await service.submit(data={"train": {"dataset": "emoji@1"}})

        refused = await service.call("DELETE", EMOJI, status=409)
        await service.call("POST", f"/v1/jobs/{job['id']}/cancel", status=202)
        accepted = await service.call("DELETE", EMOJI, status=202)

        assert refused["code"] == "dataset_in_use"
        assert refused["detail"] == f"{job['id']} trains on emoji; cancel it, or wait until it has ended"
        assert accepted["state"] == "deleting"

    async def test_a_stale_condition_is_refused(self, service: Service) -> None:
        await register(service)

        stale = await service.http.delete(EMOJI, headers={"If-Match": '"0.registering-1"'})

        assert (stale.status_code, stale.json()["code"]) == (412, "stale_if_match")


@on_both_databases
async def test_a_data_set_is_registered_found_and_removed(service: Service) -> None:
    ready = await register(service)
    await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
    await service.call("PUT", "/v1/datasets/other", body(), status=202)
    first = await service.http.get("/v1/datasets", params={"page_size": 1})
    second = await service.items("/v1/datasets", page_token=first.json()["next_page_token"])
    await put(service)
    await service.reconcile("datasets")
    service.emit({"type": "dataset.finished", "data": {"unchanged": True}}, submission=submission(2, 1))
    await service.reconcile("datasets")
    await service.call("DELETE", EMOJI, status=202)
    service.ray.jobs[submission(2, 1)] = RayJobStatus.SUCCEEDED
    await service.reconcile("datasets")

    [shown] = first.json()["items"]
    assert (shown["name"], shown["versions"], shown["aliases"]) == (NAME, [1], {"best": 1})
    assert (ready["state"], ready["latest"]) == ("ready", 1)
    assert [(each["name"], each["state"], each["versions"]) for each in second] == [("other", "registering", [])]
    assert [each["name"] for each in await service.items("/v1/datasets")] == ["other"]
