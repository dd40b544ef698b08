"""`login` and the profile that it writes, `tokens …`, and tokens in the SDK."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip import AsyncClient, Client, Unauthorized
from tinyclip._profiles import Profile, current
from tinyclip.token_format import new_token

from tests.client.conftest import Cli, Serve
from tests.client.documents import page, problem

TOKEN = {
    "id": "tok_1", "name": "ci", "project": "vision", "scopes": ["write"], "hint": "tc_abcd…", "state": "active",
    "created_by": "shell", "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-04-01T00:00:00Z",
}
SECRET = new_token()


class TokenServer:
    """Accepts one token, and creates another."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any, str | None]] = []

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/me", self.me),
            Route("/v1/tokens", self.tokens, methods=["GET", "POST"]),
            Route("/v1/tokens/tok_1", self.tokens, methods=["DELETE"]),
        ])

    async def me(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            return JSONResponse(problem(401, "this token is not known here", code="token_unknown"), 401)
        return JSONResponse({"auth": "tokens", "project": "vision", "scopes": ["read", "write"], "token": TOKEN})

    async def tokens(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"null")
        self.requests.append((request.method, request.url.path, body, request.headers.get("idempotency-key")))
        if request.method == "POST":
            return JSONResponse({**TOKEN, "token": SECRET}, 201)
        return JSONResponse({**TOKEN, "state": "revoked"} if request.method == "DELETE" else page(TOKEN))


@pytest.fixture
def server() -> TokenServer:
    return TokenServer()


@pytest.fixture
def url(serve: Serve, server: TokenServer) -> str:
    return serve(server.app()).url


class TestLogin:
    @pytest.fixture(autouse=True)
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        return tmp_path / "config" / "tinyclip" / "config.toml"

    def test_an_accepted_token_is_stored(self, cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TINYCLIP_URL")
        monkeypatch.setattr("sys.stdin", io.StringIO(SECRET + "\n"))

        result = cli("login", url, "--name", "lab")

        assert result.code == 0, result.err
        assert "project vision" in result.out
        assert SECRET not in result.out + result.err
        assert current() == Profile(url, SECRET)

    def test_an_unknown_token_changes_nothing(
        self, cli: Cli, url: str, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("tc_wrong"))

        result = cli("login", url)

        assert (result.code, "not known here" in result.err) == (2, True)
        assert not config.exists()


def test_create_prints_the_secret_alone_on_standard_output(cli: Cli, url: str, server: TokenServer) -> None:
    result = cli("tokens", "create", "ci", "--scope", "write", "--days", "0")

    assert (result.code, result.out) == (0, SECRET + "\n")
    assert "shown only now" in result.err
    [(method, _, body, key)] = server.requests
    assert (method, body) == ("POST", {"name": "ci", "scopes": ["write"], "expires_in_days": None})
    assert key


def test_list_and_revoke(cli: Cli, url: str, server: TokenServer) -> None:
    listed, revoked = cli("tokens", "list"), cli("tokens", "revoke", "tok_1")

    assert "tok_1" in listed.out
    assert "tc_abcd…" in listed.out
    assert revoked.out == "tok_1 (ci) is revoked\n"
    assert server.requests[-1][:2] == ("DELETE", "/v1/tokens/tok_1")


async def test_the_sdk(url: str) -> None:
    with Client(url, SECRET) as client:
        assert client.tokens.me().project == "vision"
        assert [token.id for token in client.tokens.list()] == ["tok_1"]
        created = client.tokens.create("ci", ["write"])
    async with AsyncClient(url, "tc_other") as other:
        with pytest.raises(Unauthorized, match="not known here"):
            await other.tokens.me()
        assert (await other.tokens.revoke("tok_1")).state == "revoked"

    assert created.token == SECRET
    assert SECRET not in repr(created)
