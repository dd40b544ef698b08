"""The actions of an index: what its state allows to the caller, which is what the service does not refuse."""

import httpx
import pytest
from tinyclip.schemas import Scope

from tests.server.guarded import bearer, token
from tests.server.indexes.gallery import GALLERY, MODEL, build, get, put
from tests.server.service import Service, Start

STATES = {
    "building": ["build", "update", "delete"], "ready": ["build", "update", "delete"],
    "updating": ["build", "update", "delete"], "failed": ["build", "delete"], "deleting": [],
}  # fmt: skip
ITEM = {"id": "a", "text": "a cat"}


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    return service


async def arrange(service: Service, state: str) -> None:
    if state in ("building", "failed"):
        await put(service)
        await service.reconcile("indexes")
    else:
        await build(service)
    if state == "failed":
        service.emit({"type": "index.failed", "message": "no shard matches", "data": {"code": "unreadable_data"}})
        await service.reconcile("indexes")
    if state == "updating":
        await service.call("POST", f"{GALLERY}/items", {"items": [ITEM]}, status=202)
    if state == "deleting":
        await service.call("DELETE", GALLERY, status=202)


async def send(service: Service, action: str) -> httpx.Response:
    if action == "build":
        return await service.http.put(GALLERY, json={"model": f"{MODEL}@1", "source": {"shards": "s3://bucket/other.tar"}})
    if action == "update":
        return await service.http.post(f"{GALLERY}/items", json={"items": [ITEM]})
    return await service.http.delete(GALLERY)


@pytest.mark.parametrize(("state", "expected"), list(STATES.items()))
async def test_each_state_has_its_actions(service: Service, state: str, expected: list[str]) -> None:
    await arrange(service, state)

    one, [of_list] = await get(service), await service.items("/v1/indexes")

    assert one["state"] == state
    assert one["actions"] == of_list["actions"] == expected


@pytest.mark.parametrize("action", ["build", "update", "delete"])
@pytest.mark.parametrize("state", STATES)
async def test_an_action_that_is_offered_changes_something_and_another_does_not(
    service: Service, state: str, action: str
) -> None:
    await arrange(service, state)
    before = await service.http.get(GALLERY)

    response = await send(service, action)

    changes = response.is_success and response.headers["etag"] != before.headers["etag"]
    assert changes == (action in before.json()["actions"]), response.text


async def test_a_token_that_cannot_write_has_none(service: Service, start: Start) -> None:
    await arrange(service, "ready")
    guarded = await start(auth="tokens")
    headers = [bearer(await token(guarded, scope)) for scope in (Scope.READ, Scope.WRITE)]

    seen = [(await guarded.http.get(GALLERY, headers=each)).json()["actions"] for each in headers]

    assert seen == [[], ["build", "update", "delete"]]
