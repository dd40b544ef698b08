"""Indexes: a Ray job builds each; its progress is shown, and a deletion takes job, files and row."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinyclip_server.backends import shards as source_shards
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.indexes import service as index_service

from tests.server.events import index_finished, index_progress
from tests.server.indexes.gallery import GALLERY, MODEL, SOURCE, build, get, lose_jobs, put
from tests.server.service import Service, Start


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    return service


class TestPut:
    async def test_is_built_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        index = await put(service)
        await service.reconcile("indexes")

        request = service.ray_request()
        [submission] = service.ray.submissions
        assert (index["state"], index["count"], index["progress"]) == ("building", 0, 0.0)
        assert submission == f"tc-index-gallery-b{request['build']}"
        entrypoint = service.ray.entrypoints[submission]
        assert entrypoint.startswith("exec ")
        assert f"-m tinyclip_workers.jobs index --artifacts {service.artifacts} --index gallery" in entrypoint
        assert request["model"] == f"{MODEL}@1"
        assert request["model_uri"] == f"{service.artifacts}/models/{MODEL}/1"
        assert request["source"]["shards"] == SOURCE["shards"]

    async def test_repeated_during_the_build_it_is_a_no_op(self, service: Service) -> None:
        for _ in range(2):
            await put(service)
            await service.reconcile("indexes")

        assert len(service.ray.submissions) == 1

    async def test_repeated_for_a_ready_index_it_builds_again(self, service: Service) -> None:
        await build(service)
        first = service.ray_request()["build"]

        repeated = await put(service)
        await service.reconcile("indexes")

        assert (repeated["state"], repeated["count"]) == ("building", 10)
        assert service.ray_request()["build"] > first

    async def test_codes_and_a_trained_size_are_requested(self, service: Service) -> None:
        await service.register_model("nested", embed_dim=32, embedding_sizes=[8, 16, 32])

        index = await put(service, model="nested@1", codes="binary", dimensions=16)
        await service.reconcile("indexes")

        request = service.ray_request()
        assert (index["codes"], index["dimensions"]) == (request["codes"], request["dimensions"]) == ("binary", 16)

    async def test_other_sizes_are_refused_with_the_trained_ones(self, service: Service) -> None:
        await service.register_model("nested", embed_dim=32, embedding_sizes=[8, 16, 32])

        for model, trained in (("nested@1", "8, 16, 32"), (f"{MODEL}@1", "32 only")):
            body = {"model": model, "dimensions": 12, "source": SOURCE}
            [error] = (await service.call("PUT", GALLERY, body, status=422))["errors"]
            assert (error["pointer"], error["value"]) == ("/dimensions", 12)
            assert trained in error["message"]

    async def test_codes_change_an_index(self, service: Service) -> None:
        await build(service)
        first = service.ray_request()["build"]

        await put(service, codes="int8")
        await service.reconcile("indexes")

        assert service.ray_request()["build"] > first

    async def test_existing_local_shards_are_accepted(self, start: Start, tmp_path: Path) -> None:
        service = await start(data_dir=tmp_path / "service")
        await service.register_model(MODEL)
        (tmp_path / "a-0.tar").touch()

        for shards in (f"{tmp_path}/a-{{0..9}}.tar", f"{tmp_path}/*.tar", f"{tmp_path}/{{a,b}}-0.tar"):
            assert (await put(service, source={"shards": shards}))["state"] == "building"

    async def test_all_globs_of_a_request_look_at_a_limited_number_of_files(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await start(data_dir=tmp_path / "service")
        await service.register_model(MODEL)
        monkeypatch.setattr(source_shards, "MAX_LOOKED", 4)
        folder = tmp_path / "shards"
        folder.mkdir()
        for number in range(4):
            (folder / f"{number}.txt").touch()

        body = {"model": f"{MODEL}@1", "source": {"shards": [f"{folder}/*.tar"]}}
        refused = await service.call("PUT", GALLERY, body, status=422)
        accepted = await put(service, source={"shards": [f"{folder}/*{end}" for end in (".txt", ".tar", ".tgz", ".tar.gz")]})

        assert "does not exist" in refused["detail"]
        assert accepted["state"] == "building"  # unknown: the Ray job looks further

    @pytest.mark.parametrize(
        ("changes", "status", "text"),
        [
            ({"source": {"shards": []}}, 422, "/source/shards"),
            ({"source": {"shard": "x"}}, 422, "did you mean shards?"),
            ({"source": {"shards": "/nowhere/{000..003}.tar"}}, 422, "/nowhere/000.tar does not exist"),
            ({"source": {"shards": f"/{'n' * 300}.tar"}}, 422, "does not exist"),
            ({"source": {"shards": ["s3://b/x.tar", "/nowhere/*.tar"]}}, 422, "/source/shards/1"),
            ({"source": {"shards": "data/x.tar"}}, 422, "give an absolute path or a URL"),
            ({"model": "nothing@1"}, 404, "there is no model nothing"),
        ],
    )
    async def test_invalid_bodies_are_refused_without_an_effect(
        self, service: Service, changes: dict[str, Any], status: int, text: str
    ) -> None:
        response = await service.http.put(GALLERY, json={"model": f"{MODEL}@1", "source": SOURCE, **changes})

        assert response.status_code == status
        assert text in response.text
        assert await service.items("/v1/indexes") == []


class TestBuild:
    async def test_progress_and_the_result_are_shown(self, service: Service) -> None:
        await put(service)
        await service.reconcile("indexes")
        service.emit(index_progress(5, 20))
        await service.reconcile("indexes")
        meanwhile = await get(service)
        service.emit(index_progress(19, 20), index_finished(20))
        await service.reconcile("indexes")

        assert (meanwhile["state"], meanwhile["progress"], meanwhile["message"]) == ("building", 0.25, "5 items of about 20")
        index = await get(service)
        assert (index["state"], index["progress"], index["count"]) == ("ready", 1.0, 20)

    async def test_a_failure_has_the_reason_and_the_count_of_the_older_build(self, service: Service) -> None:
        await build(service, 10)
        await put(service)
        await service.reconcile("indexes")

        service.emit({"type": "index.failed", "message": "no shard matches /data/x.tar", "data": {"code": "unreadable_data"}})
        await service.reconcile("indexes")

        index = await get(service)
        assert (index["state"], index["message"], index["count"]) == ("failed", "no shard matches /data/x.tar", 10)

    async def test_a_lost_job_is_retried_up_to_two_times(self, service: Service) -> None:
        await put(service)
        states = await lose_jobs(service, 3)

        index = await get(service)
        assert states == ["building", "building", "failed"]
        assert "without a final event" in index["message"]
        first, second, third = service.ray.submissions
        assert (second, third) == (f"{first}-a2", f"{first}-a3")

    async def test_a_failed_build_is_continued_on_request(self, service: Service) -> None:
        await put(service)
        await lose_jobs(service, 3)
        number = service.ray_request()["build"]

        repeated = await put(service)
        await service.reconcile("indexes")

        assert repeated["state"] == "building"
        request = service.ray_request()
        assert (request["build"], request["job"]) == (number, f"b{number}-a4")

    async def test_a_changed_request_is_another_build(self, service: Service) -> None:
        await put(service)
        await lose_jobs(service, 3)
        number = service.ray_request()["build"]

        await put(service, source={"shards": "s3://bucket/others.tar"})
        await service.reconcile("indexes")

        assert service.ray_request()["build"] > number

    async def test_the_requested_kind_and_the_actual_kind_are_passed_on(self, service: Service) -> None:
        await put(service, kind="hnsw")
        await service.reconcile("indexes")
        requested = service.ray_request()["kind"]
        measured = {"recall": 0.97, "bytes": 4096, "search_ms": 0.25}
        service.emit({"type": "index.finished", "data": {"count": 9, "kind": "hnsw", **measured}})
        await service.reconcile("indexes")

        index = await get(service)
        assert (requested, index["kind"]) == ("hnsw", "hnsw")
        assert {name: index[name] for name in measured} == measured

    async def test_the_final_event_outweighs_the_status_of_ray(self, service: Service) -> None:
        await put(service)
        await service.reconcile("indexes")
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        service.emit(index_finished(3))

        await service.reconcile("indexes")

        assert (await get(service))["state"] == "ready"

    async def test_a_restarted_cluster_gets_the_same_job(self, service: Service) -> None:
        await put(service)
        await service.reconcile("indexes")
        service.ray.jobs.clear()

        await service.reconcile("indexes", 2)

        first, second = service.ray.submissions
        assert first == second

    async def test_an_unavailable_cluster_gets_the_job_later(self, service: Service) -> None:
        service.ray.unavailable = True
        await put(service)
        await service.reconcile("indexes")
        service.ray.unavailable = False
        await service.reconcile("indexes")

        assert service.ray.submissions[-1].startswith("tc-index-gallery-b")

    async def test_a_refused_job_has_the_reason(self, service: Service) -> None:
        service.ray.refusal_reason = "too large"
        await put(service)

        await service.reconcile("indexes")

        index = await get(service)
        assert (index["state"], index["message"]) == ("failed", "Ray refused the job: too large")


class TestDelete:
    async def test_it_removes_files_and_row(self, service: Service) -> None:
        await build(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED

        deleting = await service.call("DELETE", GALLERY, status=202)
        await service.reconcile("indexes")

        assert deleting["state"] == "deleting"
        assert (await service.http.get(GALLERY)).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()

    async def test_it_stops_a_build_first(self, service: Service) -> None:
        await put(service)
        await service.reconcile("indexes")
        [job] = service.ray.submissions
        service.ray.jobs[job] = RayJobStatus.RUNNING

        await service.http.delete(GALLERY)
        await service.reconcile("indexes")
        meanwhile = await get(service)
        service.ray.jobs[job] = RayJobStatus.STOPPED
        await service.reconcile("indexes")

        assert service.ray.stopped == [job]
        assert meanwhile["state"] == "deleting"
        assert (await service.http.get(GALLERY)).status_code == 404

    async def test_a_new_index_of_the_same_name_has_another_job(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        await build(service)
        first = service.ray.submissions[-1]
        service.ray.jobs[first] = RayJobStatus.SUCCEEDED
        await service.http.delete(GALLERY)
        await service.reconcile("indexes")
        later = time.time() + 1  # outside of tests a build and a deletion take more than a second
        monkeypatch.setattr(index_service, "time", SimpleNamespace(time=lambda: later))

        await put(service)
        await service.reconcile("indexes")

        assert (await get(service))["state"] == "building"
        assert service.ray.submissions[-1] != first

    async def test_an_index_that_is_being_deleted_cannot_be_put(self, service: Service) -> None:
        await put(service)
        await service.http.delete(GALLERY)

        problem = await service.call("PUT", GALLERY, {"model": f"{MODEL}@1", "source": SOURCE}, status=409)

        assert problem["code"] == "index_deleting"


async def test_the_list_is_by_name(service: Service) -> None:
    for name in ("b", "a"):
        await put(service, f"/v1/indexes/{name}")

    assert [item["name"] for item in await service.items("/v1/indexes")] == ["a", "b"]
