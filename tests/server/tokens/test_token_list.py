"""What deployments are told of tokens."""

import json
from typing import Any

from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.schemas import Scope
from tinyclip.token_format import digest
from tinyclip_server.orchestration.token_digests import publish

from tests.server.api.test_access import bearer, token
from tests.server.service import Service, Start


def published(service: Service) -> dict[str, Any]:
    tokens: dict[str, Any] = json.loads((service.artifacts / TOKEN_DIGESTS).read_text())["tokens"]
    return tokens


async def test_digests_of_those_that_may_ask_and_no_secret(start: Start) -> None:
    service = await start(auth="tokens")
    asking, admin = await token(service, Scope.INFER, project="vision"), await token(service, Scope.ADMIN, days=None)
    await token(service, Scope.READ)

    await publish(service.app.state.services)

    told = published(service)
    assert told.keys() == {digest(asking), digest(admin)}
    assert (told[digest(asking)]["project"], told[digest(asking)]["scopes"]) == ("vision", ["infer"])
    assert (told[digest(asking)]["expires_at"] is None, told[digest(admin)]["expires_at"]) == (False, None)
    assert asking not in (service.artifacts / TOKEN_DIGESTS).read_text()


async def test_a_revoked_token_leaves_the_list(start: Start) -> None:
    service = await start(auth="tokens")
    asking, admin = await token(service, Scope.INFER), await token(service, Scope.ADMIN)
    await publish(service.app.state.services)
    me = (await service.http.get("/v1/me", headers=bearer(asking))).json()

    await service.http.delete(f"/v1/tokens/{me['token']['id']}", headers=bearer(admin))
    await publish(service.app.state.services)

    assert published(service).keys() == {digest(admin)}


async def test_a_list_that_an_older_reading_overwrote_is_put_right(start: Start) -> None:
    service = await start(auth="tokens")
    await token(service, Scope.INFER)
    await publish(service.app.state.services)
    right = (service.artifacts / TOKEN_DIGESTS).read_bytes()
    (service.artifacts / TOKEN_DIGESTS).write_bytes(b'{"tokens": {}}')

    await publish(service.app.state.services)

    assert (service.artifacts / TOKEN_DIGESTS).read_bytes() == right


async def test_a_server_that_asks_for_no_tokens_publishes_none(service: Service) -> None:
    await publish(service.app.state.services)

    assert not (service.artifacts / TOKEN_DIGESTS).exists()
