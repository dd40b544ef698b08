"""The actions of an export: what its state allows to the caller, which is what the service does not refuse."""

import httpx
import pytest
from tinyclip.schemas import Scope

from tests.server.exports.test_exports import EXPORTS, MODEL, exported, get, post
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start

ONNX = f"{EXPORTS}/onnx"
STATES = {
    "queued": ["delete"], "running": ["delete"], "succeeded": ["delete"], "failed": ["retry", "delete"], "deleting": [],
}  # fmt: skip


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    return service


async def arrange(service: Service, state: str) -> None:
    if state == "succeeded":
        await exported(service)
        return
    await post(service, "onnx")
    if state in ("running", "failed"):
        await service.reconcile("exports")
        failed = {"type": "export.failed", "message": "off by 0.1", "data": {"code": "export_off"}}
        service.emit(failed if state == "failed" else {"type": "export.progress", "message": "", "data": {"fraction": 0.1}})
        await service.reconcile("exports")
    if state == "deleting":
        await service.call("DELETE", ONNX, status=202)


async def send(service: Service, action: str) -> httpx.Response:
    if action == "retry":
        return await service.http.post(EXPORTS, json={"formats": ["onnx"]})
    return await service.http.delete(ONNX)


@pytest.mark.parametrize(("state", "expected"), list(STATES.items()))
async def test_each_state_has_its_actions(service: Service, state: str, expected: list[str]) -> None:
    await arrange(service, state)

    one, [of_list] = await get(service, "onnx"), await service.items(EXPORTS)

    assert one["state"] == state
    assert one["actions"] == of_list["actions"] == expected


@pytest.mark.parametrize("action", ["retry", "delete"])
@pytest.mark.parametrize("state", STATES)
async def test_an_action_that_is_offered_changes_something_and_another_does_not(
    service: Service, state: str, action: str
) -> None:
    await arrange(service, state)
    before = await get(service, "onnx")

    response = await send(service, action)

    changes = response.is_success and (await get(service, "onnx"))["state"] != before["state"]
    assert changes == (action in before["actions"]), response.text


async def test_a_token_that_cannot_write_has_none(service: Service, start: Start) -> None:
    await arrange(service, "failed")
    guarded = await start(auth="tokens")
    headers = [bearer(await token(guarded, scope)) for scope in (Scope.READ, Scope.WRITE)]

    seen = [(await guarded.http.get(ONNX, headers=each)).json()["actions"] for each in headers]

    assert seen == [[], ["retry", "delete"]]
