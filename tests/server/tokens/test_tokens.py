"""`/v1/tokens`: made, shown once, listed, revoked."""

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
    async def test_one_is_made_shown_once_used_and_revoked(self, guarded: Service) -> None:
        admin = bearer(await token(guarded, Scope.ADMIN, project="vision"))
        body = {"name": "ci", "scopes": ["write"], "expires_in_days": 30}

        made = await guarded.http.post("/v1/tokens", json=body, headers=admin)
        secret = made.json()["token"]
        listed = (await guarded.http.get("/v1/tokens", headers=admin)).json()["items"]
        me = (await guarded.http.get("/v1/me", headers=bearer(secret))).json()
        revoked = await guarded.http.delete(f"/v1/tokens/{made.json()['id']}", headers=admin)
        after = await guarded.http.get("/v1/jobs", headers=bearer(secret))

        assert (made.status_code, made.headers["cache-control"], is_well_formed(secret)) == (201, "no-store", True)
        assert [item["name"] for item in listed] == ["ci", "test"]
        assert secret not in str(listed)
        assert (me["project"], me["scopes"], me["token"]["id"]) == ("vision", ["write"], made.json()["id"])
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
    async def test_each_refusal_says_why(self, guarded: Service, header: str | None, code: str) -> None:
        answer = await guarded.http.get("/v1/jobs", headers={"Authorization": header} if header else {})

        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]

    def test_a_typo_is_seen_in_any_place(self) -> None:
        whole = new_token()

        typos = [whole[:i] + ("0" if whole[i] != "0" else "1") + whole[i + 1 :] for i in range(len(whole))]
        swaps = [whole[:i] + whole[i + 1] + whole[i] + whole[i + 2 :] for i in range(len(whole) - 1)]

        assert is_well_formed(whole)
        candidates = typos + swaps + ["", "tc_", whole + "a", whole.lower()]
        assert not any(is_well_formed(wrong) for wrong in candidates if wrong != whole)

    async def test_one_that_has_expired_is_told_so(self, guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = await token(guarded, Scope.READ, days=1)
        assert (await guarded.http.get("/v1/jobs", headers=bearer(secret))).status_code == 200

        monkeypatch.setattr(tokens, "now", lambda: datetime.now(UTC) + timedelta(days=1, seconds=1))

        answer = await guarded.http.get("/v1/jobs", headers=bearer(secret))
        assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")

    async def test_nobody_gives_away_what_they_do_not_have(self, guarded: Service) -> None:
        admin = bearer(await token(guarded, Scope.ADMIN))

        answer = await guarded.http.post("/v1/tokens", json={"name": "m", "scopes": ["metrics"]}, headers=admin)

        assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_held")

    async def test_a_repeated_request_makes_no_second_token(self, guarded: Service) -> None:
        headers = {**bearer(await token(guarded, Scope.ADMIN)), "Idempotency-Key": "k"}

        first, second = [
            await guarded.http.post("/v1/tokens", json={"name": "ci", "scopes": ["read"]}, headers=headers) for _ in range(2)
        ]

        assert (first.status_code, second.status_code, second.json()["code"]) == (201, 409, "token_shown_once")
        assert first.json()["id"] in second.json()["detail"]
        assert len((await guarded.http.get("/v1/tokens", headers=headers)).json()["items"]) == 2

    @on_both_databases
    async def test_the_database_has_no_secret(self, start: Start) -> None:
        service = await start(auth="tokens")
        secret = await token(service, Scope.ADMIN, days=None)
        async with service.app.state.services.db.read() as session:
            (row,) = (await session.execute(select(TokenRow.__table__))).all()

        assert secret not in str(row)
        assert (await service.http.get("/v1/me", headers=bearer(secret))).json()["token"]["expires_at"] is None

    async def test_a_server_without_auth_takes_everybody_for_the_default_project(self, service: Service) -> None:
        me = (await service.http.get("/v1/me")).json()

        assert (me["auth"], me["project"], me["token"]) == ("none", "default", None)
        assert set(me["scopes"]) == {scope.value for scope in Scope}
