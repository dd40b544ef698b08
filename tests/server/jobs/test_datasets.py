"""Jobs that train on a data set: its version is resolved, and what belongs to it cannot be changed by a spec."""

from typing import Any

import pytest
from tinyclip.artifacts.documents import JobDocument

from tests.server.datasets.pairs import EMOJI, NAME, put, register
from tests.server.documents import spec
from tests.server.events import Worker
from tests.server.service import Service, on_both_databases

SOURCE = {"shards": ["/data/0.tar"], "image_key": ["png"], "caption_key": "json.captions", "distinct_key": "json.concept"}


def on(reference: str, **train: Any) -> dict[str, Any]:
    """Return the data of a spec."""
    return {"train": {"dataset": reference, **train}}


@pytest.fixture
async def service(service: Service) -> Service:
    await register(service, source=SOURCE, holdout=0.1)
    await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
    return service


async def refused(service: Service, data: dict[str, Any]) -> dict[str, Any]:
    return await service.call("POST", "/v1/jobs", spec(data=data), status=422)


class TestCreate:
    @on_both_databases
    async def test_the_alias_is_resolved_for_user_and_worker(self, service: Service) -> None:
        worker = await service.started(data=on("emoji@best"))

        shown = (await service.job(worker.job))["spec"]["data"]["train"]
        document = JobDocument.model_validate(worker.spec())
        assert (shown["dataset"], shown["shards"]) == ("emoji@1", None)
        assert (shown["caption_key"], shown["holdout"]) == ("json.captions", 0.1)
        assert document.dataset is not None
        assert (document.dataset.name, document.dataset.version, document.dataset.pairs) == (NAME, 1, 90)
        train = document.dataset.resolve(document.spec).data.train
        assert (train.dataset, train.shards, train.image_key) == ("emoji@1", ["/data/0.tar"], ["png"])

    async def test_the_planner_gets_the_version(self, service: Service) -> None:
        body = spec(data=on("emoji@latest"))

        response = await service.http.post("/v1/jobs", json=body, params={"validate_only": True})

        assert response.status_code == 200
        assert response.json()["samples_per_epoch"] == 90
        assert response.json()["spec"]["data"]["train"]["dataset"] == "emoji@1"

    async def test_fields_that_repeat_the_data_set_are_accepted(self, service: Service) -> None:
        job = await service.submit(data=on("emoji@1", image_key=["png"], caption_key="json.captions", holdout=0.1))

        assert job["spec"]["data"]["train"]["distinct_key"] == "json.concept"

    @pytest.mark.parametrize(
        ("train", "pointer", "value"),
        [
            ({"image_key": ["jpg"]}, "/data/train/image_key", ["jpg"]),
            ({"caption_key": "txt"}, "/data/train/caption_key", "txt"),
            ({"distinct_key": None}, "/data/train/distinct_key", None),
            ({"holdout": 0.2}, "/data/train/holdout", 0.2),
        ],
    )
    async def test_fields_that_differ_from_the_data_set_are_refused(
        self, service: Service, train: dict[str, Any], pointer: str, value: Any
    ) -> None:
        problem = await refused(service, on("emoji@1", **train))

        [error] = problem["errors"]
        assert (problem["code"], error["pointer"], error["value"]) == ("dataset_differs", pointer, value)
        assert error["message"].endswith("in data set emoji@1, to which it belongs; omit it")

    @pytest.mark.parametrize(
        ("train", "pointer", "message"),
        [
            (on("emoji@9"), "/data/train/dataset", "it has versions 1 and aliases latest, best"),
            (on("emoji@worst"), "/data/train/dataset", "has no version or alias worst"),
            (on("none@1"), "/data/train/dataset", "there is no data set none"),
            (on("emoji"), "/data/train/dataset", "pattern"),
            (on("emoji@1", shards="/a.tar"), "/data/train", "give either shards or dataset"),
            (on("emoji@1", samples=5), "/data/train", "samples is known for a data set; omit it"),
        ],
    )
    async def test_what_does_not_exist_or_contradicts_itself_is_refused(
        self, service: Service, train: dict[str, Any], pointer: str, message: str
    ) -> None:
        [error] = (await refused(service, train))["errors"]

        assert error["pointer"] == pointer
        assert message in error["message"]

    async def test_a_data_set_without_versions_cannot_be_used_yet(self, service: Service) -> None:
        await service.call("PUT", "/v1/datasets/new", {"source": {"shards": "s3://b/0.tar"}}, status=202)

        [error] = (await refused(service, on("new@latest")))["errors"]

        assert error["message"].endswith("it has none yet")

    async def test_an_earlier_version_can_be_used_during_a_registration(self, service: Service) -> None:
        await put(service, holdout=0.3)

        assert (await service.submit(data=on("emoji@latest")))["spec"]["data"]["train"]["dataset"] == "emoji@1"

    async def test_a_data_set_that_is_being_deleted_is_refused(self, service: Service) -> None:
        await service.call("DELETE", EMOJI, status=202)

        problem = await service.call("POST", "/v1/jobs", spec(data=on("emoji@1")), status=409)

        assert problem["code"] == "dataset_deleted"


class TestAgain:
    async def failed(self, service: Service) -> Worker:
        worker = await service.running(data=on("emoji@best"), max_attempts=1)
        worker.emit({"type": "attempt.failed", "message": "no", "data": {"code": "io", "retryable": False}})
        await service.tick()
        return worker

    async def test_a_retry_has_the_same_version(self, service: Service) -> None:
        worker = await self.failed(service)
        await register(service, digest="ef" * 32)
        await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 2})

        job = await service.call("POST", f"/v1/jobs/{worker.job}/retry", status=202)
        await service.tick()

        document = JobDocument.model_validate(Worker(service.artifacts, await service.job(job["id"])).spec())
        assert document.dataset is not None
        assert (document.spec.data.train.dataset, document.dataset.version) == ("emoji@1", 1)

    async def test_a_retry_of_a_deleted_version_is_refused(self, service: Service) -> None:
        worker = await self.failed(service)
        assert (await service.http.delete(f"{EMOJI}/versions/1")).status_code == 204

        problem = await service.call("POST", f"/v1/jobs/{worker.job}/retry", status=409)

        assert problem["code"] == "dataset_deleted"

    async def test_a_clone_may_have_another_version_with_other_keys(self, service: Service) -> None:
        job = await service.submit(data=on("emoji@1"))
        await register(service, source={"shards": "/data/1.tar", "caption_key": "txt"}, holdout=0.0)

        same = await service.call("POST", f"/v1/jobs/{job['id']}/clone", {"set": {}}, status=201)
        changes = {"set": {"data.train.dataset": "emoji@latest"}}
        other = await service.call("POST", f"/v1/jobs/{job['id']}/clone", changes, status=201)

        assert [same["spec"]["data"]["train"][field] for field in ("dataset", "caption_key")] == ["emoji@1", "json.captions"]
        assert [other["spec"]["data"]["train"][field] for field in ("dataset", "caption_key")] == ["emoji@2", "txt"]

    async def test_a_clone_may_change_from_a_data_set_to_shards(self, service: Service) -> None:
        job = await service.submit(data=on("emoji@1"))

        changes = {"set": {"data.train.dataset": None, "data.train.shards": "/data/0.tar"}}
        clone = await service.call("POST", f"/v1/jobs/{job['id']}/clone", changes, status=201)

        train = clone["spec"]["data"]["train"]
        assert (train["dataset"], train["shards"], train["caption_key"]) == (None, "/data/0.tar", "json.captions")
