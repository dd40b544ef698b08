"""Indexes: a request becomes a Ray job, the job's events become state."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.orchestration.indexes import reconcile

from tests.server.index_builds import finished, progress, request, tell
from tests.server.service import Service

MODEL = "emoji-half"
SOURCE = {"shards": "s3://bucket/{0..3}.tar"}


@pytest.fixture
async def service(service: Service) -> Service:
    await service.made(MODEL)
    return service


async def put(service: Service, name: str = "gallery", **source: Any) -> dict[str, Any]:
    answer = await service.http.put(f"/v1/indexes/{name}", json={"model": f"{MODEL}@1", "source": {**SOURCE, **source}})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def get(service: Service, name: str = "gallery") -> dict[str, Any]:
    answer = await service.http.get(f"/v1/indexes/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


async def built(service: Service, count: int = 10) -> None:
    await put(service)
    await round_(service)
    tell(service, finished(count))
    await round_(service)
    assert (await get(service))["state"] == "ready"


async def dying(service: Service, times: int) -> list[str]:
    """The index's state after each of its next jobs has died without a word."""
    states = []
    for _ in range(times):
        await round_(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await round_(service)
        states.append((await get(service))["state"])
    return states


class TestPut:
    async def test_is_built_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        made = await put(service)
        await round_(service)

        wanted = request(service)
        submission = service.ray.submissions[-1]
        assert (made["state"], made["count"], made["progress"]) == ("building", 0, 0.0)
        assert submission == f"tc-index-gallery-b{wanted['build']}"
        entrypoint = service.ray.entrypoints[submission]
        assert entrypoint.startswith("exec ")
        assert f"-m tinyclip_workers.jobs index --artifacts {service.artifacts} --index gallery" in entrypoint
        assert wanted["model"] == f"{MODEL}@1"
        assert wanted["model_uri"] == f"{service.artifacts}/models/{MODEL}/1"
        assert wanted["source"]["shards"] == SOURCE["shards"]

    async def test_the_same_again_while_it_is_built_changes_nothing(self, service: Service) -> None:
        await put(service)
        await round_(service)
        await put(service)
        await round_(service)

        assert len([name for name in service.ray.submissions if "index" in name]) == 1

    async def test_again_when_ready_builds_anew(self, service: Service) -> None:
        await built(service)
        first = request(service)["build"]

        again = await put(service)
        await round_(service)

        assert (again["state"], again["count"]) == ("building", 10)
        assert request(service)["build"] > first

    async def test_local_shards_are_looked_at(self, service: Service, tmp_path: Path) -> None:
        (tmp_path / "a-0.tar").touch()

        for shards in (f"{tmp_path}/a-{{0..9}}.tar", f"{tmp_path}/*.tar", f"{tmp_path}/{{a,b}}-0.tar"):
            assert (await put(service, shards=shards))["state"] == "building"

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            ({"model": f"{MODEL}@1", "source": {"shards": []}}, 422, "/source/shards"),
            ({"model": f"{MODEL}@1", "source": {"shard": "x"}}, 422, "did you mean shards?"),
            ({"model": f"{MODEL}@1", "source": {"shards": "/nowhere/{000..003}.tar"}}, 422, "/nowhere/000.tar does not exist"),
            ({"model": f"{MODEL}@1", "source": {"shards": ["s3://b/x.tar", "/nowhere/*.tar"]}}, 422, "/source/shards/1"),
            ({"model": f"{MODEL}@1", "source": {"shards": "data/x.tar"}}, 422, "give an absolute path or a URL"),
            ({"model": "nothing@1", "source": SOURCE}, 404, "there is no model nothing"),
        ],
    )
    async def test_bad_bodies(self, service: Service, body: dict[str, Any], status: int, says: str) -> None:
        answer = await service.http.put("/v1/indexes/gallery", json=body)

        assert answer.status_code == status
        assert says in answer.text
        assert (await service.http.get("/v1/indexes")).json()["items"] == []


class TestBuild:
    async def test_progress_and_the_end_are_shown(self, service: Service) -> None:
        await put(service)
        await round_(service)
        tell(service, progress(5, 20))
        await round_(service)
        half_way = await get(service)
        tell(service, progress(19, 20), finished(20))
        await round_(service)

        assert (half_way["state"], half_way["progress"], half_way["message"]) == ("building", 0.25, "5 items of about 20")
        done = await get(service)
        assert (done["state"], done["progress"], done["count"]) == ("ready", 1.0, 20)

    async def test_what_failed_says_why_and_an_older_build_is_still_counted(self, service: Service) -> None:
        await built(service, 10)
        await put(service)
        await round_(service)

        tell(service, {"type": "index.failed", "message": "no shard matches /data/x.tar", "data": {"code": "unreadable_data"}})
        await round_(service)

        failed = await get(service)
        assert (failed["state"], failed["message"], failed["count"]) == ("failed", "no shard matches /data/x.tar", 10)

    async def test_a_job_that_died_without_a_word_is_begun_again_three_times(self, service: Service) -> None:
        await put(service)
        states = await dying(service, 3)

        failed = await get(service)
        assert states == ["building", "building", "failed"]
        assert "without a word" in failed["message"]
        first, second, third = [name for name in service.ray.submissions if "index" in name]
        assert (second, third) == (f"{first}-a2", f"{first}-a3")

    async def test_asked_for_again_what_failed_goes_on_with_the_same_build(self, service: Service) -> None:
        await put(service)
        await dying(service, 3)
        build = request(service)["build"]

        again = await put(service)
        await round_(service)

        assert again["state"] == "building"
        assert (request(service)["build"], request(service)["job"]) == (build, f"b{build}-a4")

    async def test_asked_for_otherwise_it_is_another_build(self, service: Service) -> None:
        await put(service)
        await dying(service, 3)
        build = request(service)["build"]

        await put(service, shards="s3://bucket/others.tar")
        await round_(service)

        assert request(service)["build"] > build

    async def test_the_kind_is_asked_for_and_shown(self, service: Service) -> None:
        body = {"model": f"{MODEL}@1", "source": SOURCE, "kind": "hnsw"}
        assert (await service.http.put("/v1/indexes/gallery", json=body)).status_code == 202
        await round_(service)
        asked = request(service)["kind"]
        tell(service, {"type": "index.finished", "data": {"count": 9, "kind": "hnsw", "recall": 0.97}})
        await round_(service)

        shown = await get(service)
        assert (asked, shown["kind"], shown["recall"]) == ("hnsw", "hnsw", 0.97)

    async def test_an_end_that_ray_sees_first_is_told_by_its_events(self, service: Service) -> None:
        await put(service)
        await round_(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        tell(service, finished(3))

        await round_(service)

        assert (await get(service))["state"] == "ready"

    async def test_a_cluster_that_has_forgotten_the_job_gets_it_again(self, service: Service) -> None:
        await put(service)
        await round_(service)
        service.ray.jobs.clear()

        await round_(service)
        await round_(service)

        first, second = [name for name in service.ray.submissions if "index" in name]
        assert first == second

    async def test_a_cluster_that_is_away_changes_nothing(self, service: Service) -> None:
        service.ray.away = True
        await put(service)
        await round_(service)
        service.ray.away = False
        await round_(service)

        assert service.ray.submissions[-1].startswith("tc-index-gallery-b")

    async def test_a_refused_job_says_why(self, service: Service) -> None:
        service.ray.refuses = "too large"
        await put(service)

        await round_(service)

        failed = await get(service)
        assert (failed["state"], failed["message"]) == ("failed", "Ray refused the job: too large")


async def test_lists_by_name(service: Service) -> None:
    for name in ("b", "a"):
        await put(service, name)

    assert [item["name"] for item in (await service.http.get("/v1/indexes")).json()["items"]] == ["a", "b"]
