"""The actions of a reinforcement: what its state allows to the caller, which is what the service does not refuse."""

import httpx
import pytest
from tinyclip.schemas import Scope

from tests.server.datasets.pairs import register
from tests.server.documents import spec
from tests.server.guarded import bearer, token
from tests.server.reinforcements.test_reinforcements import REINFORCEMENTS, TEACHER, get, on, post, reinforced
from tests.server.service import Service, Start, on_both_databases

STATES = {
    "queued": ["delete"], "running": ["delete"], "succeeded": ["train", "delete"], "failed": ["retry", "delete"],
    "trained on": ["train"], "deleting": [],
}  # fmt: skip


@pytest.fixture
async def service(service: Service) -> Service:
    await register(service)
    return service


async def in_state(service: Service, state: str) -> str:
    if state in ("succeeded", "trained on"):
        id = await reinforced(service)
        if state == "trained on":
            await service.submit(data=on(id))
        return id
    id = str((await post(service))["id"])
    if state != "queued":
        await service.reconcile("reinforcements")
    if state == "running":
        service.emit({"type": "reinforcement.progress", "message": "1 of 2 shards", "data": {"fraction": 0.5}})
    if state == "failed":
        service.emit({"type": "reinforcement.failed", "message": "no teacher", "data": {"code": "unreadable_model"}})
    if state == "deleting":
        await service.call("DELETE", f"{REINFORCEMENTS}/{id}", status=202)
    if state in ("running", "failed"):
        await service.reconcile("reinforcements")
    return id


async def send(service: Service, action: str, id: str) -> httpx.Response:
    if action == "train":
        return await service.http.post("/v1/jobs", json=spec(data=on(id)))
    if action == "retry":
        return await service.http.post(REINFORCEMENTS, json={"teacher": TEACHER})
    return await service.http.delete(f"{REINFORCEMENTS}/{id}")


@pytest.mark.parametrize(("state", "expected"), list(STATES.items()))
@on_both_databases
async def test_each_state_has_its_actions(service: Service, state: str, expected: list[str]) -> None:
    id = await in_state(service, state)

    one, [of_list] = await get(service, id), await service.items(REINFORCEMENTS)

    assert state in (one["state"], "trained on")
    assert one["actions"] == of_list["actions"] == expected


@pytest.mark.parametrize("action", ["train", "retry", "delete"])
@pytest.mark.parametrize("state", STATES)
async def test_an_action_that_is_offered_changes_something_and_another_does_not(
    service: Service, state: str, action: str
) -> None:
    id = await in_state(service, state)
    before = await service.http.get(f"{REINFORCEMENTS}/{id}")

    response = await send(service, action, id)

    changes = response.is_success and response.headers["etag"] != before.headers["etag"]
    assert changes == (action in before.json()["actions"]), response.text


async def test_a_token_that_cannot_write_has_none(service: Service, start: Start) -> None:
    id = await in_state(service, "succeeded")
    guarded = await start(auth="tokens")
    headers = [bearer(await token(guarded, scope)) for scope in (Scope.READ, Scope.WRITE)]

    seen = [(await guarded.http.get(f"{REINFORCEMENTS}/{id}", headers=each)).json()["actions"] for each in headers]

    assert seen == [[], ["train", "delete"]]
