"""Updates of single items: an acknowledged update is kept, applied once, and counted once searches see it."""

import base64
import json
from typing import Any

import pytest
from tinyclip.artifacts.documents import IndexUpdate
from tinyclip.schemas import IndexItem
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.indexes import items

from tests.server.events import index_finished, index_updated
from tests.server.indexes.gallery import GALLERY, MODEL, build, get, put
from tests.server.service import Service, Start, on_both_databases

ITEM = {"id": "a", "text": "a cat", "metadata": {"year": 2020}}
ITEMS = f"{GALLERY}/items"


@pytest.fixture
async def empty(start: Start) -> Service:
    """A service without an index."""
    service = await start()
    await service.register_model(MODEL)
    return service


@pytest.fixture
async def service(empty: Service) -> Service:
    """A service with an index that is ready."""
    await build(empty)
    return empty


async def add(service: Service, *items: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    return await service.call("POST", ITEMS, {"items": items or [ITEM]}, status=202, key=key)


def counts(index: dict[str, Any]) -> tuple[int, int, int]:
    return index["updates"], index["applied_updates"], index["pending_updates"]


def numbers(service: Service) -> list[int]:
    """Return the numbers of the updates that the newest job applies."""
    return [update["number"] for update in service.ray_request()["updates"]]


def update(service: Service, place: int) -> dict[str, Any]:
    """Return the update at this place of the request of the newest job."""
    file = service.ray_request()["updates"][place]["file"]
    return json.loads((service.artifacts / "indexes/gallery/updates" / file).read_text())


class TestPutWithoutShards:
    """A build without shards begins empty, and items that were added exist nowhere else."""

    async def test_of_another_kind_is_refused_for_an_index_with_items(self, service: Service) -> None:
        before = service.ray_request()

        problem = await service.call("PUT", GALLERY, {"model": f"{MODEL}@1"}, status=409)

        assert problem["code"] == "index_holds_items"
        assert "gallery holds 10 items and 0 pending updates" in problem["detail"]
        await service.reconcile("indexes")
        assert (service.ray_request(), (await get(service))["state"]) == (before, "ready")

    async def test_of_another_kind_is_refused_for_an_index_with_pending_updates(self, empty: Service) -> None:
        await put(empty, source=None)
        await add(empty)

        problem = await empty.call("PUT", GALLERY, {"model": f"{MODEL}@1", "kind": "exact"}, status=409)

        assert problem["code"] == "index_holds_items"
        assert "0 items and 1 pending updates" in problem["detail"]

    async def test_of_another_kind_builds_an_empty_index_again(self, empty: Service) -> None:
        await put(empty, source=None)

        assert (await put(empty, source=None, kind="exact"))["state"] == "building"

    async def test_repeated_it_keeps_the_items(self, empty: Service) -> None:
        await put(empty, source=None)
        await empty.reconcile("indexes")
        empty.emit(index_finished(0))
        await empty.reconcile("indexes")
        repeated = await put(empty, source=None)
        await empty.reconcile("indexes")

        assert repeated["state"] == "ready"
        assert len(empty.ray.submissions) == 1


class TestAdd:
    @on_both_databases
    async def test_an_update_is_applied_by_a_job_and_then_counted(self, service: Service) -> None:
        number = service.ray_request()["build"]
        accepted = await add(service)
        await service.reconcile("indexes")

        assert (accepted["state"], *counts(accepted)) == ("updating", 1, 0, 1)
        assert service.ray_request()["job"] == f"b{number}-u1"
        assert numbers(service) == [1]
        assert update(service, 0) == {"items": [ITEM], "removed": []}
        service.emit(index_updated(1, 11))
        await service.reconcile("indexes")
        index = await get(service)
        assert (index["state"], *counts(index)) == ("ready", 1, 1, 0)
        assert (index["count"], index["kind"], index["recall"]) == (11, "hnsw", 0.98)

    async def test_updates_accepted_meanwhile_are_for_the_next_job(self, service: Service) -> None:
        await add(service)
        await service.reconcile("indexes")
        for number in (2, 3):
            assert (await add(service))["updates"] == number
        service.emit(index_updated(1, 11))
        await service.reconcile("indexes")
        between = await get(service)
        await service.reconcile("indexes")

        assert (between["state"], between["pending_updates"]) == ("updating", 2)
        assert service.ray_request()["job"].endswith("-u3")
        assert numbers(service) == [2, 3]

    async def test_a_job_that_reports_several_times_is_followed_to_its_end(self, service: Service) -> None:
        rejected = {"update": 1, "id": "a", "reason": "x"}
        for _ in range(3):
            await add(service)
        await service.reconcile("indexes")
        service.emit(index_updated(2, 12, rejected, last=False))
        await service.reconcile("indexes")
        meanwhile = await get(service)
        service.emit(index_updated(2, 12, rejected, last=False), index_updated(3, 13))
        await service.reconcile("indexes")

        assert (meanwhile["state"], *counts(meanwhile)) == ("updating", 3, 2, 1)
        index = await get(service)
        assert (index["state"], *counts(index), len(index["rejected"])) == ("ready", 3, 3, 0, 1)

    async def test_updates_accepted_during_a_build_are_applied_to_it(self, service: Service) -> None:
        await add(service)
        await service.reconcile("indexes")
        service.emit(index_updated(1, 11))
        await service.reconcile("indexes")
        await put(service)
        await service.reconcile("indexes")
        accepted = await add(service)
        await service.reconcile("indexes")
        during = service.ray_request()
        service.emit(index_finished(10))
        await service.reconcile("indexes", 2)

        assert (accepted["state"], accepted["pending_updates"]) == ("building", 1)
        assert (during["updates"], during["applied"]) == (None, 1)
        assert numbers(service) == [2]
        assert service.ray_request()["build"] == during["build"]

    async def test_a_repeated_request_is_one_update(self, service: Service) -> None:
        first = await add(service, key="k")
        repeated = await add(service, key="k")

        assert (first["updates"], repeated["updates"], (await get(service))["updates"]) == (1, 1, 1)
        assert len(list((service.artifacts / "indexes/gallery/updates").iterdir())) == 1

    async def test_a_restarted_server_submits_the_job(self, service: Service, start: Start) -> None:
        await add(service)
        restarted = await start(service.ray)
        await restarted.reconcile("indexes")

        assert numbers(restarted) == [1]

    async def test_a_lost_job_is_retried_with_the_same_updates(self, service: Service) -> None:
        await add(service)
        await service.reconcile("indexes")
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await service.reconcile("indexes", 2)

        assert service.ray_request()["job"].endswith("-u1-a2")
        assert numbers(service) == [1]
        assert (await get(service))["pending_updates"] == 1

    async def test_an_index_whose_update_failed_accepts_no_more_until_it_is_put_again(self, service: Service) -> None:
        await add(service)
        await service.reconcile("indexes")
        number = service.ray_request()["build"]
        service.emit({"type": "index.failed", "message": "no model there", "data": {"code": "index_failed"}})
        await service.reconcile("indexes")
        refused = await service.call("POST", ITEMS, {"items": [ITEM]}, status=409)
        repeated = await put(service)
        await service.reconcile("indexes")

        assert refused["code"] == "index_failed"
        assert "no model there" in refused["detail"]
        assert repeated["state"] == "updating"
        # A new build would lose items that were added.
        request = service.ray_request()
        assert (request["build"], request["job"]) == (number, f"b{number}-u1-a4")
        assert numbers(service) == [1]

    async def test_rejected_items_are_shown(self, service: Service) -> None:
        await add(service)
        await service.reconcile("indexes")
        service.emit(index_updated(1, 10, {"update": 1, "id": "a", "reason": "the image is cut off"}))
        await service.reconcile("indexes")

        assert (await get(service))["rejected"] == [{"update": 1, "id": "a", "reason": "the image is cut off"}]


class TestRemove:
    @pytest.mark.parametrize("id", ["a", "folder/a b.png", "ü"])
    async def test_a_removal_is_an_update_too(self, service: Service, id: str) -> None:
        accepted = await service.call("DELETE", f"{ITEMS}/{id}", status=202)
        await service.reconcile("indexes")

        assert accepted["pending_updates"] == 1
        assert update(service, 0) == {"items": [], "removed": [id]}

    async def test_a_deleted_index_takes_its_updates_with_it(self, service: Service) -> None:
        await add(service)
        await service.http.delete(GALLERY)
        refused = await service.call("POST", ITEMS, {"items": [ITEM]}, status=409)
        await service.reconcile("indexes")

        assert refused["code"] == "index_deleting"
        assert (await service.http.get(GALLERY)).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()


IMAGE = base64.b64encode(b"picture").decode()


@pytest.mark.parametrize(
    ("body", "text"),
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
async def test_invalid_items_are_named_without_an_effect(service: Service, body: dict[str, Any], text: str) -> None:
    response = await service.http.post(ITEMS, json=body)

    assert response.status_code == 422
    assert text in response.text
    assert (await get(service))["updates"] == 0
    assert not (service.artifacts / "indexes/gallery/updates").exists()


async def test_a_missing_index_is_not_found(service: Service) -> None:
    added = await service.call("POST", "/v1/indexes/nothing/items", {"items": [ITEM]}, status=404)
    removed = await service.call("DELETE", "/v1/indexes/nothing/items/a", status=404)

    assert (added["status"], removed["status"]) == (404, 404)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_an_update_is_written_as_its_readers_expect(size: int) -> None:
    given = [IndexItem(id=f"{number}\"é", text="a, b", metadata={"a": [None]}) for number in range(size)]
    update = IndexUpdate(items=given, removed=["x", "]}"])

    assert IndexUpdate.model_validate_json(items._written(update)) == update
