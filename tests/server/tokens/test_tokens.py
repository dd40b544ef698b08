"""`/v1/tokens`: creation, listing and revocation, and the refusals of invalid tokens."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from tinyclip.schemas import Scope
from tinyclip.token_format import is_well_formed, new_token
from tinyclip_server.database.tables import TokenRow
from tinyclip_server.tokens import service as tokens

from tests.server.guarded import bearer, guarded, token
from tests.server.service import Service, Start, on_both_databases

__all__ = ["guarded"]


class TestTokens:
    async def test_a_token_is_created_used_listed_and_revoked(self, guarded: Service) -> None:
        admin = bearer(await token(guarded, Scope.ADMIN, project="vision"))
        body = {"name": "ci", "scopes": ["write"], "expires_in_days": 30}

        created = await guarded.http.post("/v1/tokens", json=body, headers=admin)
        secret = created.json()["token"]
        listed = (await guarded.http.get("/v1/tokens", headers=admin)).json()["items"]
        me = (await guarded.http.get("/v1/me", headers=bearer(secret))).json()
        revoked = await guarded.http.delete(f"/v1/tokens/{created.json()['id']}", headers=admin)
        after = await guarded.http.get("/v1/jobs", headers=bearer(secret))

        assert (created.status_code, created.headers["cache-control"], is_well_formed(secret)) == (201, "no-store", True)
        assert [item["name"] for item in listed] == ["ci", "test"]
        assert secret not in str(listed)
        assert (me["project"], me["scopes"], me["token"]["id"]) == ("vision", ["write"], created.json()["id"])
        assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
        assert (after.status_code, after.json()["code"]) == (401, "token_revoked")
        assert after.headers["www-authenticate"].startswith("Bearer")

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            (None, "token_required"),
            ("Basic dXNlcjpwYXNz", "token_required"),
            ("Bearer ", "token_required"),
            ("Bearer tc_short", "token_malformed"),
            (f"Bearer {new_token()[:-1]}", "token_malformed"),
            (f"Bearer {new_token()}", "token_unknown"),
        ],
        ids=["none", "another scheme", "empty", "short", "cut off", "unknown"],
    )
    async def test_each_refusal_has_its_code(self, guarded: Service, header: str | None, code: str) -> None:
        response = await guarded.http.get("/v1/jobs", headers={"Authorization": header} if header else {})

        assert (response.status_code, response.json()["code"]) == (401, code)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]

    def test_a_typo_is_detected_at_every_position(self) -> None:
        valid = new_token()

        typos = [valid[:i] + ("0" if valid[i] != "0" else "1") + valid[i + 1 :] for i in range(len(valid))]
        swaps = [valid[:i] + valid[i + 1] + valid[i] + valid[i + 2 :] for i in range(len(valid) - 1)]

        assert is_well_formed(valid)
        candidates = typos + swaps + ["", "tc_", valid + "a", valid.lower()]
        assert not any(is_well_formed(wrong) for wrong in candidates if wrong != valid)

    async def test_an_expired_token_is_refused(self, guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = await token(guarded, Scope.READ, days=1)
        assert (await guarded.http.get("/v1/jobs", headers=bearer(secret))).status_code == 200

        monkeypatch.setattr(tokens, "now", lambda: datetime.now(UTC) + timedelta(days=1, seconds=1))

        response = await guarded.http.get("/v1/jobs", headers=bearer(secret))
        assert (response.status_code, response.json()["code"]) == (401, "token_expired")

    async def test_a_scope_that_the_caller_lacks_is_refused(self, guarded: Service) -> None:
        admin = bearer(await token(guarded, Scope.ADMIN))

        response = await guarded.http.post("/v1/tokens", json={"name": "m", "scopes": ["metrics"]}, headers=admin)

        assert (response.status_code, response.json()["code"]) == (403, "scope_not_held")

    async def test_a_repeated_request_creates_no_second_token(self, guarded: Service) -> None:
        headers = {**bearer(await token(guarded, Scope.ADMIN)), "Idempotency-Key": "k"}

        first, second = [
            await guarded.http.post("/v1/tokens", json={"name": "ci", "scopes": ["read"]}, headers=headers) for _ in range(2)
        ]

        assert (first.status_code, second.status_code, second.json()["code"]) == (201, 409, "token_shown_once")
        assert first.json()["id"] in second.json()["detail"]
        assert len((await guarded.http.get("/v1/tokens", headers=headers)).json()["items"]) == 2

    @on_both_databases
    async def test_the_database_contains_no_secret(self, start: Start) -> None:
        service = await start(auth="tokens")
        secret = await token(service, Scope.ADMIN, days=None)
        async with service.app.state.services.db.read() as session:
            (row,) = (await session.execute(select(TokenRow.__table__))).all()

        assert secret not in str(row)
        assert (await service.http.get("/v1/me", headers=bearer(secret))).json()["token"]["expires_at"] is None

    async def test_without_auth_every_caller_is_in_the_default_project(self, service: Service) -> None:
        me = (await service.http.get("/v1/me")).json()

        assert (me["auth"], me["project"], me["token"]) == ("none", "default", None)
        assert set(me["scopes"]) == {scope.value for scope in Scope}
