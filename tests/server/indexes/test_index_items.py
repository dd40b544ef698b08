"""Changing an index item by item: what is acknowledged is kept, applied once, and shown when searches see it."""

import base64
import json
from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.orchestration.indexes import reconcile

from tests.server.index_builds import finished, request, tell, updated
from tests.server.service import Service, Start, on_both_databases

MODEL = "emoji-half"
ITEM = {"id": "a", "text": "a cat", "metadata": {"year": 2020}}
"""Embeddings of the model have 32 numbers."""


@pytest.fixture
async def service(start: Start) -> Service:
    """With an index that is ready."""
    return await with_index(await start())


async def with_index(service: Service) -> Service:
    await service.made(MODEL)
    await put(service)
    await round_(service)
    tell(service, finished(10))
    await round_(service)
    assert (await get(service))["state"] == "ready"
    return service


async def put(service: Service) -> dict[str, Any]:
    body = {"model": f"{MODEL}@1", "source": {"shards": "s3://bucket/x.tar"}}
    answer = await service.http.put("/v1/indexes/gallery", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def add(service: Service, *items: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await service.http.post("/v1/indexes/gallery/items", json={"items": items or [ITEM]}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def get(service: Service) -> dict[str, Any]:
    return (await service.http.get("/v1/indexes/gallery")).json()


def counted(index: dict[str, Any]) -> tuple[int, int, int]:
    return index["updates"], index["applied_updates"], index["pending_updates"]


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


def update(service: Service, place: int) -> dict[str, Any]:
    """What the running job finds as the update in this place of its request."""
    file = request(service)["updates"][place]["file"]
    return json.loads((service.artifacts / "indexes/gallery/updates" / file).read_text())


class TestPutWithoutShards:
    """What was added one by one is nowhere else."""

    async def test_of_another_model_is_refused_while_there_are_items(self, service: Service) -> None:
        before = request(service)

        answer = await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1"})

        assert (answer.status_code, answer.json()["code"]) == (409, "index_holds_items")
        assert "gallery holds 10 items and 0 pending updates" in answer.json()["detail"]
        await round_(service)
        assert (request(service), (await get(service))["state"]) == (before, "ready")

    async def test_nor_while_only_changes_wait(self, start: Start) -> None:
        service = await start()
        await service.made(MODEL)
        await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1"})
        await add(service)

        answer = await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1", "kind": "exact"})

        assert (answer.status_code, answer.json()["code"]) == (409, "index_holds_items")
        assert "0 items and 1 pending updates" in answer.json()["detail"]

    async def test_of_an_empty_one_begins_anew(self, start: Start) -> None:
        service = await start()
        await service.made(MODEL)
        await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1"})

        answer = await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1", "kind": "exact"})

        assert (answer.status_code, answer.json()["state"]) == (202, "building")


class TestAdding:
    @on_both_databases
    async def test_is_applied_by_a_job_and_then_seen(self, start: Start) -> None:
        service = await with_index(await start())
        build = request(service)["build"]
        accepted = await add(service)
        await round_(service)

        assert (accepted["state"], *counted(accepted)) == ("updating", 1, 0, 1)
        assert request(service)["job"] == f"b{build}-u1"
        assert [one["number"] for one in request(service)["updates"]] == [1]
        assert update(service, 0) == {"items": [ITEM], "removed": []}
        tell(service, updated(1, 11))
        await round_(service)
        done = await get(service)
        assert (done["state"], *counted(done)) == ("ready", 1, 1, 0)
        assert (done["count"], done["kind"], done["recall"]) == (11, "hnsw", 0.98)

    async def test_those_accepted_meanwhile_are_the_next_job(self, service: Service) -> None:
        await add(service)
        await round_(service)
        for number in (2, 3):
            assert (await add(service))["updates"] == number
        tell(service, updated(1, 11))
        await round_(service)
        between = await get(service)
        await round_(service)

        assert (between["state"], between["pending_updates"]) == ("updating", 2)
        assert request(service)["job"].endswith("-u3")
        assert [one["number"] for one in request(service)["updates"]] == [2, 3]

    async def test_a_job_in_rounds_is_followed_to_its_end(self, service: Service) -> None:
        for _ in range(3):
            await add(service)
        await round_(service)
        tell(service, updated(2, 12, {"update": 1, "id": "a", "reason": "x"}, last=False))
        await round_(service)
        half_way = await get(service)
        tell(service, updated(2, 12, {"update": 1, "id": "a", "reason": "x"}, last=False), updated(3, 13))
        await round_(service)

        assert (half_way["state"], *counted(half_way)) == ("updating", 3, 2, 1)
        done = await get(service)
        assert (done["state"], *counted(done), len(done["rejected"])) == ("ready", 3, 3, 0, 1)

    async def test_those_accepted_during_a_build_are_applied_to_it(self, service: Service) -> None:
        await add(service)
        await round_(service)
        tell(service, updated(1, 11))
        await round_(service)
        await put(service)
        await round_(service)
        waiting = await add(service)
        await round_(service)
        during = request(service)
        tell(service, finished(10))
        await round_(service)
        await round_(service)

        assert (waiting["state"], waiting["pending_updates"]) == ("building", 1)
        assert (during["updates"], during["applied"]) == (None, 1)
        assert [one["number"] for one in request(service)["updates"]] == [2]
        assert request(service)["build"] == during["build"]

    async def test_a_repeated_request_is_one_update(self, service: Service) -> None:
        headers = {"Idempotency-Key": "k"}
        first = await add(service, **headers)
        again = await add(service, **headers)

        assert (first["updates"], again["updates"], (await get(service))["updates"]) == (1, 1, 1)
        assert len(list((service.artifacts / "indexes/gallery/updates").iterdir())) == 1

    async def test_a_server_that_is_started_again_goes_on(self, service: Service, start: Start) -> None:
        await add(service)
        later = await start(service.ray)
        await round_(later)

        assert [one["number"] for one in request(later)["updates"]] == [1]

    async def test_a_job_that_dies_is_begun_again_with_the_same_updates(self, service: Service) -> None:
        await add(service)
        await round_(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await round_(service)
        await round_(service)

        assert request(service)["job"].endswith("-u1-a2")
        assert [one["number"] for one in request(service)["updates"]] == [1]
        assert (await get(service))["pending_updates"] == 1

    async def test_an_index_whose_updates_fail_takes_no_more_and_goes_on_after_a_put(self, service: Service) -> None:
        await add(service)
        await round_(service)
        build = request(service)["build"]
        tell(service, {"type": "index.failed", "message": "no model there", "data": {"code": "index_failed"}})
        await round_(service)
        refused = await service.http.post("/v1/indexes/gallery/items", json={"items": [ITEM]})
        again = await put(service)
        await round_(service)

        assert (refused.status_code, refused.json()["code"]) == (409, "index_failed")
        assert "no model there" in refused.json()["detail"]
        assert again["state"] == "updating"
        # A build would lose what else was added.
        assert (request(service)["build"], request(service)["job"]) == (build, f"b{build}-u1-a4")
        assert [one["number"] for one in request(service)["updates"]] == [1]

    async def test_put_again_of_an_index_without_shards_keeps_what_was_added(self, service: Service) -> None:
        async def put_bare() -> dict[str, Any]:
            answer = await service.http.put("/v1/indexes/bare", json={"model": f"{MODEL}@1"})
            assert answer.status_code == 202, answer.text
            return answer.json()

        await put_bare()
        await round_(service)
        tell(service, finished(0), index="bare")
        await round_(service)
        submitted = len(service.ray.submissions)
        again = await put_bare()
        await round_(service)

        assert again["state"] == "ready"
        assert len(service.ray.submissions) == submitted

    async def test_what_was_rejected_is_shown(self, service: Service) -> None:
        await add(service)
        await round_(service)
        tell(service, updated(1, 10, {"update": 1, "id": "a", "reason": "the image is cut off"}))
        await round_(service)

        assert (await get(service))["rejected"] == [{"update": 1, "id": "a", "reason": "the image is cut off"}]


class TestRemoving:
    @pytest.mark.parametrize("id", ["a", "folder/a b.png", "ü"])
    async def test_is_an_update_too(self, service: Service, id: str) -> None:
        answer = await service.http.delete(f"/v1/indexes/gallery/items/{id}")
        await round_(service)

        assert (answer.status_code, answer.json()["pending_updates"]) == (202, 1)
        assert update(service, 0) == {"items": [], "removed": [id]}

    async def test_the_index_takes_its_updates_with_it(self, service: Service) -> None:
        await add(service)
        await service.http.delete("/v1/indexes/gallery")
        refused = await service.http.post("/v1/indexes/gallery/items", json={"items": [ITEM]})
        await round_(service)

        assert (refused.status_code, refused.json()["code"]) == (409, "index_deleting")
        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()


IMAGE = base64.b64encode(b"picture").decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"items": []}, "/items"),
        ({"items": [{"id": "a"}]}, "give exactly one of image, text and vector, not none"),
        ({"items": [{"id": "a", "text": "b", "image": IMAGE}]}, "not image and text"),
        ({"items": [{"id": "", "text": "b"}]}, "/items/0/id"),
        ({"items": [{"id": "a", "text": " "}]}, "blank"),
        ({"items": [ITEM, ITEM]}, "the id 'a' occurs 2 times"),
        ({"items": [{"id": "a", "vector": [1.0, 2.0]}]}, "has 2 numbers, but the model's embeddings have 32"),
        ({"items": [{"id": "a", "vector": [0.0] * 32}]}, "no direction"),
        ({"items": [ITEM, {"id": "b", "image": "no base64!"}]}, "/items/1/image: is not base64"),
        ({"items": [{"id": "b", "image": "https://example.com/a.png"}]}, "is a URL"),
        ({"items": [{"id": "b", "image": "data:image/png;base64,"}]}, "is empty"),
        ({"items": [{"id": "b", "txt": "a"}]}, "did you mean text?"),
    ],
)
async def test_bad_items_are_named_and_change_nothing(service: Service, body: dict[str, Any], says: str) -> None:
    answer = await service.http.post("/v1/indexes/gallery/items", json=body)

    assert answer.status_code == 422
    assert says in answer.text
    assert (await get(service))["updates"] == 0
    assert not (service.artifacts / "indexes/gallery/updates").exists()


async def test_an_index_that_is_not_there(service: Service) -> None:
    answers = [
        await service.http.post("/v1/indexes/nothing/items", json={"items": [ITEM]}),
        await service.http.delete("/v1/indexes/nothing/items/a"),
    ]

    assert [answer.status_code for answer in answers] == [404, 404]
