"""The digests of tokens that are published for deployments."""

import json
from typing import Any

import pytest
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.schemas import Scope
from tinyclip.token_format import digest
from tinyclip_server.orchestration.serve import token_digests
from tinyclip_server.orchestration.serve.token_digests import publish

from tests.server.guarded import bearer, token
from tests.server.service import Service, Start


def published(service: Service) -> dict[str, Any]:
    tokens: dict[str, Any] = json.loads((service.artifacts / TOKEN_DIGESTS).read_text())["tokens"]
    return tokens


async def test_digests_of_tokens_with_the_scope_are_published_without_secrets(start: Start) -> None:
    service = await start(auth="tokens")
    inferring, admin = await token(service, Scope.INFER, project="vision"), await token(service, Scope.ADMIN, days=None)
    await token(service, Scope.READ)

    await publish(service.app.state.services)

    digests = published(service)
    assert digests.keys() == {digest(inferring), digest(admin)}
    assert (digests[digest(inferring)]["project"], digests[digest(inferring)]["scopes"]) == ("vision", ["infer"])
    assert (digests[digest(inferring)]["expires_at"] is None, digests[digest(admin)]["expires_at"]) == (False, None)
    assert inferring not in (service.artifacts / TOKEN_DIGESTS).read_text()


async def test_a_revoked_token_is_removed(start: Start) -> None:
    service = await start(auth="tokens")
    inferring, admin = await token(service, Scope.INFER), await token(service, Scope.ADMIN)
    await publish(service.app.state.services)
    me = (await service.http.get("/v1/me", headers=bearer(inferring))).json()

    await service.http.delete(f"/v1/tokens/{me['token']['id']}", headers=bearer(admin))
    await publish(service.app.state.services)

    assert published(service).keys() == {digest(admin)}


async def test_a_stale_list_is_replaced(start: Start) -> None:
    service = await start(auth="tokens")
    await token(service, Scope.INFER)
    await publish(service.app.state.services)
    current = (service.artifacts / TOKEN_DIGESTS).read_bytes()
    (service.artifacts / TOKEN_DIGESTS).write_bytes(b'{"tokens": {}}')

    await publish(service.app.state.services)

    assert (service.artifacts / TOKEN_DIGESTS).read_bytes() == current


async def test_a_server_that_is_suspended_does_not_publish_what_was_revoked_meanwhile(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(auth="tokens")
    inferring, admin = await token(service, Scope.INFER), await token(service, Scope.ADMIN)
    me = (await service.http.get("/v1/me", headers=bearer(inferring))).json()
    store = service.app.state.services.store
    read = store.read_if_exists

    async def suspended(path: str) -> bytes | None:
        found: bytes | None = await read(path)
        await service.http.delete(f"/v1/tokens/{me['token']['id']}", headers=bearer(admin))
        return found

    monkeypatch.setattr(store, "read_if_exists", suspended)
    await publish(service.app.state.services)

    assert published(service).keys() == {digest(admin)}


async def test_a_list_that_was_read_too_long_ago_is_not_published(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await start(auth="tokens")
    await token(service, Scope.INFER)
    monkeypatch.setattr(token_digests, "MAX_AGE_SECONDS", 0.0)

    await publish(service.app.state.services)

    assert not (service.artifacts / TOKEN_DIGESTS).exists()


async def test_a_server_without_auth_publishes_none(service: Service) -> None:
    await publish(service.app.state.services)

    assert not (service.artifacts / TOKEN_DIGESTS).exists()
