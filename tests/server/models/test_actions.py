"""The actions of a model version: what the caller's scopes allow, which is what the service does not refuse."""

from typing import Any, get_args

import pytest
from tinyclip.schemas import ModelAction, Scope

from tests.server.guarded import bearer, guarded, token
from tests.server.service import Service

__all__ = ["guarded"]

VERSION = "/v1/models/emoji/versions/1"
TASK = {"name": "cars", "kind": "retrieval", "shards": "s3://bucket/cars.tar"}
REQUESTS: dict[str, list[tuple[str, str, Any]]] = {
    "deploy": [("PUT", "/v1/deployments/demo", {"model": "emoji@1"})],
    "evaluate": [("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [TASK]})],
    "export": [("POST", f"{VERSION}/exports", {"formats": ["onnx"]})],
    "alias": [("PUT", "/v1/models/emoji/aliases/best", {"version": 1}), ("DELETE", "/v1/models/emoji/aliases/best", None)],
}


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
async def test_what_is_offered_is_accepted_and_all_else_is_refused(guarded: Service, scope: Scope) -> None:
    await guarded.register_model("emoji")
    headers = bearer(await token(guarded, scope))

    one = (await guarded.http.get(VERSION, headers=headers)).json()
    [of_list] = (await guarded.http.get("/v1/models/emoji/versions", headers=headers)).json()["items"]

    assert one["actions"] == of_list["actions"] == (list(REQUESTS) if scope is Scope.WRITE else [])
    for action, requests in REQUESTS.items():
        for method, path, body in requests:
            response = await guarded.http.request(method, path, json=body, headers=headers)
            assert response.is_success == (action in one["actions"]), (action, response.text)


def test_every_action_is_tried() -> None:
    assert list(REQUESTS) == list(get_args(ModelAction))
