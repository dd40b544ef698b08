"""Tokens at the command line and in the SDK, and the profile that a login writes."""

import io
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip import AsyncClient, Client, InputError, Unauthorized
from tinyclip._profiles import Profile, current, store
from tinyclip.token_format import new_token

from tests.client.conftest import Cli, Serve

TOKEN = {
    "id": "tok_1", "name": "ci", "project": "vision", "scopes": ["write"], "hint": "tc_abcd…", "state": "active",
    "created_by": "shell", "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-04-01T00:00:00Z",
}
SECRET = new_token()


class Server:
    """Knows one token, and makes another."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str | None]] = []

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/me", self.me),
            Route("/v1/tokens", self.tokens, methods=["GET", "POST"]),
            Route("/v1/tokens/tok_1", self.token, methods=["GET", "DELETE"]),
        ])

    async def me(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            problem = {"title": "Unauthorized", "status": 401, "code": "token_unknown", "detail": "this token is not known here"}
            return JSONResponse(problem, 401)
        return JSONResponse({"auth": "tokens", "project": "vision", "scopes": ["read", "write"], "token": TOKEN})

    async def tokens(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"null")
        self.asked.append((request.method, request.url.path, body, request.headers.get("idempotency-key")))
        if request.method == "POST":
            return JSONResponse({**TOKEN, "token": SECRET}, 201)
        return JSONResponse({"items": [TOKEN], "next_page_token": None})

    async def token(self, request: Request) -> Response:
        self.asked.append((request.method, request.url.path, None, None))
        return JSONResponse({**TOKEN, "state": "revoked"})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "tinyclip" / "config.toml"


class TestLogin:
    def test_a_good_token_is_kept_where_only_its_owner_reads_it(
        self, cli: Cli, serve: Serve, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = serve(Server().app()).url
        monkeypatch.delenv("TINYCLIP_URL")
        monkeypatch.setattr("sys.stdin", io.StringIO(SECRET + "\n"))

        ran = cli("login", url, "--name", "lab")

        assert ran.code == 0, ran.err
        assert "project vision" in ran.out
        assert SECRET not in ran.out + ran.err
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert current() == Profile(url, SECRET)

    def test_a_bad_token_changes_nothing(
        self, cli: Cli, serve: Serve, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("tc_wrong"))

        ran = cli("login", serve(Server().app()).url)

        assert (ran.code, "not known here" in ran.err) == (2, True)
        assert not config.exists()

    def test_what_the_file_says_otherwise_stays(self, config: Path) -> None:
        config.parent.mkdir(parents=True)
        config.write_text('# mine\ndefault = "lab"\n[profiles.lab]\nurl = "http://lab"  # the lab\ntoken = "old"\n')
        config.chmod(0o644)

        store(Profile("http://prod", "new"), "prod")
        store(Profile("http://lab"), "lab")

        text = config.read_text()
        assert ("# mine" in text, "# the lab" in text) == (True, True)
        assert tomllib.loads(text) == {
            "default": "lab", "profiles": {"lab": {"url": "http://lab"}, "prod": {"url": "http://prod", "token": "new"}}
        }
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert [each.name for each in config.parent.iterdir()] == ["config.toml"]

    def test_a_broken_file_is_not_written_over(self, config: Path) -> None:
        config.parent.mkdir(parents=True)
        config.write_text("default = ")

        with pytest.raises(InputError, match="not valid TOML"):
            store(Profile("http://lab", "t"), "lab")
        assert config.read_text() == "default = "

    def test_a_profile_does_not_show_its_token(self) -> None:
        assert SECRET not in repr(Profile("http://lab", SECRET))


class TestTokens:
    def test_create_prints_the_secret_alone_on_standard_output(self, cli: Cli, serve: Serve) -> None:
        server = Server()
        serve(server.app())

        ran = cli("tokens", "create", "ci", "--scope", "write", "--days", "0")

        assert (ran.code, ran.out) == (0, SECRET + "\n")
        assert "shown only now" in ran.err
        method, _, body, key = server.asked[0]
        assert (method, body) == ("POST", {"name": "ci", "scopes": ["write"], "expires_in_days": None})
        assert key

    def test_list_and_revoke(self, cli: Cli, serve: Serve) -> None:
        server = Server()
        serve(server.app())

        listed, revoked = cli("tokens", "list"), cli("tokens", "revoke", "tok_1")

        assert "tok_1" in listed.out
        assert "tc_abcd…" in listed.out
        assert revoked.out == "tok_1 (ci) is revoked\n"
        assert server.asked[-1][:2] == ("DELETE", "/v1/tokens/tok_1")

    async def test_the_sdk_sync_and_async(self, serve: Serve) -> None:
        url = serve(Server().app()).url

        with Client(url, SECRET) as client:
            assert client.tokens.me().project == "vision"
            assert [token.id for token in client.tokens.list()] == ["tok_1"]
            made = client.tokens.create("ci", ["write"])
        async with AsyncClient(url, "tc_other") as other:
            with pytest.raises(Unauthorized, match="not known here"):
                await other.tokens.me()
            assert (await other.tokens.revoke("tok_1")).state == "revoked"

        assert made.token == SECRET
        assert SECRET not in repr(made)
