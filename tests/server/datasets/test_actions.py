"""The actions of data sets and their versions: what the state allows to the caller, which is what the service does not refuse."""

from typing import Any

import httpx
import pytest
from tinyclip.schemas import Scope

from tests.server.datasets.pairs import EMOJI, get, put, register
from tests.server.documents import spec
from tests.server.events import dataset_failed
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start, on_both_databases

VERSION = f"{EMOJI}/versions/1"
TEACHER = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
ALL = ["train", "reinforce", "alias", "delete"]
SITUATIONS = {
    "registering": (["register", "delete"], ["train", "reinforce", "alias"]),
    "ready": (["register", "delete"], ALL),
    "failed": (["register", "delete"], ALL),
    "trained on": (["register"], ["train", "reinforce", "alias"]),
    "trained on until now": (["register", "delete"], ALL),
    "reinforced": (["register"], ["train", "reinforce", "alias"]),
    "deleting": ([], []),
}
"""The actions of the data set and of its version."""


async def arrange(service: Service, situation: str) -> None:
    """Register a data set with one version, and bring it into a state or let it be used."""
    await register(service)
    await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
    if situation in ("registering", "failed"):
        await put(service, holdout=0.2)
        await service.reconcile("datasets")
    if situation == "failed":
        service.emit(dataset_failed("no_samples", "no shard has samples"))
        await service.reconcile("datasets")
    if situation.startswith("trained on"):
        job = await service.submit(data={"train": {"dataset": "emoji@1"}})
        if situation != "trained on":
            await service.call("POST", f"/v1/jobs/{job['id']}/cancel", status=202)
    if situation == "reinforced":
        await service.call("POST", f"{VERSION}/reinforcements", {"teacher": TEACHER}, status=202)
    if situation == "deleting":
        await service.call("DELETE", EMOJI, status=202)


async def send(service: Service, action: str) -> httpx.Response:
    requests: dict[str, tuple[str, str, Any]] = {
        "register": ("PUT", EMOJI, {"source": {"shards": "s3://bucket/other.tar"}}),
        "delete": ("DELETE", EMOJI, None),
        "train": ("POST", "/v1/jobs", spec(data={"train": {"dataset": "emoji@1"}})),
        "reinforce": ("POST", f"{VERSION}/reinforcements", {"teacher": TEACHER, "augmentations": 2}),
        "set alias": ("PUT", f"{EMOJI}/aliases/other", {"version": 1}),
        "remove alias": ("DELETE", f"{EMOJI}/aliases/best", None),
        "delete version": ("DELETE", VERSION, None),
    }
    method, path, body = requests[action]
    return await service.http.request(method, path, json=body)


@pytest.mark.parametrize(("situation", "expected"), list(SITUATIONS.items()))
@on_both_databases
async def test_each_situation_has_its_actions(service: Service, situation: str, expected: tuple[list[str], list[str]]) -> None:
    await arrange(service, situation)

    one, [of_list] = await get(service), await service.items("/v1/datasets")
    version, [version_of_list] = await service.get(VERSION), await service.items(f"{EMOJI}/versions")

    assert (one["actions"], version["actions"]) == expected
    assert (of_list["actions"], version_of_list["actions"]) == expected


@pytest.mark.parametrize("action", ["register", "delete"])
@pytest.mark.parametrize("situation", SITUATIONS)
async def test_an_offered_action_changes_the_data_set_and_another_does_not(
    service: Service, situation: str, action: str
) -> None:
    await arrange(service, situation)
    before = await service.http.get(EMOJI)

    response = await send(service, action)

    changes = response.is_success and response.headers["etag"] != before.headers["etag"]
    assert changes == (action in before.json()["actions"]), response.text


@pytest.mark.parametrize("action", ["train", "reinforce", "set alias", "remove alias", "delete version"])
@pytest.mark.parametrize("situation", SITUATIONS)
async def test_an_action_of_a_version_is_accepted_if_it_is_offered(service: Service, situation: str, action: str) -> None:
    await arrange(service, situation)
    version = await service.get(VERSION)

    response = await send(service, action)

    name = {"set alias": "alias", "remove alias": "alias", "delete version": "delete"}.get(action, action)
    assert response.is_success == (name in version["actions"]), response.text


async def test_only_the_version_that_is_used_is_kept(service: Service) -> None:
    await arrange(service, "trained on")
    await register(service)

    versions = await service.items(f"{EMOJI}/versions")

    assert {each["version"]: "delete" in each["actions"] for each in versions} == {1: False, 2: True}
    assert (await get(service))["actions"] == ["register"]


async def test_a_token_that_cannot_write_has_none(service: Service, start: Start) -> None:
    await arrange(service, "ready")
    guarded = await start(auth="tokens")
    reader, writer = [bearer(await token(guarded, scope)) for scope in (Scope.READ, Scope.WRITE)]

    for path in (EMOJI, VERSION):
        seen = [(await guarded.http.get(path, headers=headers)).json()["actions"] for headers in (reader, writer)]
        assert seen == [[], (await service.get(path))["actions"]]
