"""`tinyclip-server doctor`: each fault is reported with a hint."""

import asyncio
import contextlib
import errno
import http.client
import json
import os
import shutil
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem
from sqlalchemy import text
from tinyclip_server import cli
from tinyclip_server.database import engine
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import head
from tinyclip_server.local.checks import machine, services
from tinyclip_server.local.checks.result import Check
from tinyclip_server.local.doctor import examine, examine_until_passed
from tinyclip_server.local.machine import free_port
from tinyclip_server.orchestration.installation import bind
from tinyclip_server.settings import Settings

from tests.s3 import BUCKET, s3_server
from tests.server.fake_ray import fake_ray
from tests.server.service import Start, on_both_databases

RAY = version("ray")


def settings_of(tmp_path: Path, **given: Any) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path, "port": free_port(), "serve_port": free_port(), **given})


async def found(settings: Settings, name: str) -> Check:
    """Return the worst of the checks with that name."""
    checks = [check for check in await examine(settings) if check.name == name]
    return max(checks, key=lambda check: ("ok", "warn", "fail").index(check.result))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start an S3 server and configure this process for it."""
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield


@contextlib.contextmanager
def unconditional(server: str) -> Iterator[str]:
    """Run a proxy that drops the condition of requests to an S3 server; yield its address."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # S3 clients expect a 100 before they send a body

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            self.close_connection = True
            if not self.raw_requestline or not self.parse_request():
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("if-none-match", "expect")}
            upstream = http.client.HTTPConnection(server.removeprefix("http://"))
            upstream.request(self.command, self.path, body, headers)
            with contextlib.closing(upstream):
                answer = upstream.getresponse()
                content = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()


async def test_all_checks_pass_on_a_fresh_machine_and_leave_nothing_behind(tmp_path: Path) -> None:
    checks = await examine(settings_of(tmp_path / "new"))

    assert Counter(check.result for check in checks if not check.name.startswith("disk")) == {"ok": 10}
    assert not (tmp_path / "new" / "tinyclip.db").exists()
    assert files_in(tmp_path / "new") == []


async def test_every_check_that_does_not_pass_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("no folder")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = {"ray_address": "http://127.0.0.1:1", "port": port, "database_url": "postgresql://u@127.0.0.1:1/d"}
        checks = await examine(settings_of(tmp_path, **given))

    failed = {check.name for check in checks if check.result == "fail"}
    assert {"database", "ray", "artifacts", "API port"} <= failed
    assert [check.name for check in checks if (check.result == "ok") != (check.hint == "")] == []


@pytest.mark.parametrize(
    ("given", "result", "text"),
    [
        ({"auth": "tokens"}, "fail", "TINYCLIP_DATA_ROOTS must name what users of a token may read"),
        ({"auth": "tokens", "data_roots": ["s3://b/pairs"]}, "ok", "s3://b/pairs"),
        ({"data_roots": ["/nowhere"]}, "warn", "/nowhere is not a folder"),
        ({}, "ok", "none"),
    ],
    ids=["missing", "prefix", "not there", "none"],
)
async def test_the_roots_of_data_are_checked(tmp_path: Path, given: dict[str, Any], result: str, text: str) -> None:
    [check] = [check for check in await examine(settings_of(tmp_path, **given)) if check.name == "data roots"]

    assert (check.result, text in check.message) == (result, True)


async def test_failing_checks_are_repeated_until_the_time_limit(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with socket.create_server(("127.0.0.1", settings.port)) as taken:
        asyncio.get_running_loop().call_later(1.5, taken.close)
        assert "fail" not in {check.result for check in await examine_until_passed(settings, 30) if check.name == "API port"}
    with socket.create_server(("127.0.0.1", settings.port)):
        assert "fail" in {check.result for check in await examine_until_passed(settings, 1) if check.name == "API port"}


class TestDatabase:
    @on_both_databases
    async def test_one_at_the_newest_revision(self, tmp_path: Path, database_url: str) -> None:
        settings = settings_of(tmp_path, database_url=database_url)

        assert (await found(settings, "database")).result == "ok"
        assert (await found(settings, "migrations")).message == f"at {head()}, the newest"

    async def test_a_newer_one(self, tmp_path: Path, database_url: str) -> None:
        settings = settings_of(tmp_path, database_url=database_url)
        database = Database(settings.async_database_url)
        async with database.write() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await database.close()

        line = await found(settings, "migrations")

        assert (line.result, "9999" in line.message, f"migrate --to {head()}" in line.hint) == ("fail", True, True)

    @pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
    @pytest.mark.parametrize(
        ("ahead_s", "result", "message"),
        [(1, "ok", "within 5 s"), (60, "warn", "60.0 s ahead of"), (-60, "warn", "60.0 s behind")],
    )
    async def test_the_clock_is_compared(
        self, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, ahead_s: int, result: str, message: str
    ) -> None:
        monkeypatch.setattr(services, "now", lambda: engine.now() + timedelta(seconds=ahead_s))

        line = await found(settings_of(tmp_path, database_url=database_url), "clock")

        assert (line.result, message in line.message, "NTP" in line.hint) == (result, True, result == "warn")

    @pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
    async def test_an_empty_postgresql(self, tmp_path: Path, empty_database_url: str) -> None:
        line = await found(settings_of(tmp_path, database_url=empty_database_url), "migrations")

        assert (line.result, line.hint) == ("fail", "run tinyclip-server migrate")


async def test_the_store_of_the_database(tmp_path: Path, start: Start) -> None:
    service = await start()
    await bind(service.app.state.services)
    given = {"database_url": service.settings.database_url}

    own = await found(settings_of(tmp_path, **given, artifacts=str(service.artifacts)), "binding")
    another = await found(settings_of(tmp_path, **given, artifacts=str(tmp_path / "another")), "binding")

    shutil.copy(tmp_path / "tinyclip.db", tmp_path / "copy.db")
    await bind(service.app.state.services)
    copy = settings_of(tmp_path, database_url=f"sqlite:///{tmp_path / 'copy.db'}", artifacts=str(service.artifacts))
    of_copy = await found(copy, "binding")

    assert (own.result, another.result, of_copy.result) == ("ok", "fail", "fail")
    assert ("copy.db" in of_copy.message, "--take-over" in of_copy.hint) == (True, True)
    assert (str(service.artifacts) in another.message, another.hint.split(".")[0]) == (True, "set it to the former")


class TestRay:
    async def test_none_beside_a_postgresql(self, tmp_path: Path) -> None:
        line = await found(settings_of(tmp_path, database_url="postgresql://u@127.0.0.1:1/d"), "ray")

        assert (line.result, line.hint.startswith("set TINYCLIP_RAY_ADDRESS")) == ("fail", True)

    async def test_the_same_version_behind_its_token(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("a-token\n")
        with fake_ray(RAY) as ray:
            ray.token = "a-token"
            settings = settings_of(tmp_path, ray_address=ray.address, ray_token_path=tmp_path / "token")

            assert (await found(settings, "ray version")).result == "ok"
            assert (await found(settings, "ray token")).result == "ok"

    async def test_another_version_fails_with_the_command_and_a_missing_token_is_a_warning(self, tmp_path: Path) -> None:
        with fake_ray("2.9.3") as ray:
            settings = settings_of(tmp_path, ray_address=ray.address)
            line, token = await found(settings, "ray version"), await found(settings, "ray token")

        assert (line.result, line.message) == ("fail", f"{RAY} here, 2.9.3 on the cluster")
        assert "pip install 'ray==2.9.3'" in line.hint
        assert token.result == "warn"

    async def test_a_wrong_token_fails(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("another\n")
        with fake_ray(RAY) as ray:
            ray.token = "a-token"
            line = await found(settings_of(tmp_path, ray_address=ray.address, ray_token_path=tmp_path / "token"), "ray")

        assert (line.result, "401" in line.message, "TINYCLIP_RAY_TOKEN_PATH" in line.hint) == ("fail", True, True)


class TestConditionalWrites:
    async def test_s3_refuses_the_second(self, tmp_path: Path, s3: None) -> None:
        line = await found(settings_of(tmp_path, artifacts=f"s3://{BUCKET}/conditional"), "conditional writes")

        assert (line.result, line.message) == ("ok", "one of 8 concurrent writers created a file, a later one was refused")

    async def test_a_store_that_ignores_the_condition_fails(
        self, tmp_path: Path, s3: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with unconditional(os.environ["AWS_ENDPOINT_URL"]) as address:
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            S3FileSystem.clear_instance_cache()
            checks = await examine(settings_of(tmp_path, artifacts=f"s3://{BUCKET}/unconditional"))

        [plain] = [check for check in checks if check.name == "artifacts"]
        [line] = [check for check in checks if check.name == "conditional writes"]
        assert plain.result == "ok"
        assert (line.result, line.message) == ("fail", f"s3://{BUCKET}/unconditional let 9 of 9 writers create the same file")
        assert "If-None-Match" in line.hint

    async def test_a_file_system_without_hard_links_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)

        line = await found(settings_of(tmp_path), "conditional writes")

        assert (line.result, "hard links" in line.hint) == ("fail", True)
        assert "not permitted" in line.message
        assert files_in(tmp_path) == []


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FAIL_BYTES", 1 << 60)

    line = await found(settings_of(tmp_path), "disk: artifacts")

    assert (line.result, str(tmp_path) in line.hint) == ("fail", True)


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tinyclip-server", "doctor", *flags])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        return int(exit_info.value.code or 0), capsys.readouterr().out

    def test_json_is_a_list_and_failures_set_the_exit_status(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr(machine, "FAIL_BYTES", 0)
        flags = ("--data-dir", str(tmp_path), "--port", str(free_port()), "--serve-port", str(free_port()), "--json")
        passed, output = self.run(monkeypatch, capsys, *flags)
        monkeypatch.setenv("TINYCLIP_RAY_ADDRESS", "http://127.0.0.1:1")
        failed, failed_output = self.run(monkeypatch, capsys, *flags)

        assert (passed, failed) == (0, 1)
        assert {"name", "result", "message", "way_out"} == set(json.loads(output)[0])
        assert "ray" in [check["name"] for check in json.loads(failed_output) if check["result"] == "fail"]

    def test_the_table_shows_every_check_with_its_hint(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TINYCLIP_RAY_ADDRESS", "http://127.0.0.1:1")
        monkeypatch.setenv("COLUMNS", "300")

        code, output = self.run(monkeypatch, capsys, "--data-dir", str(tmp_path))

        assert code == 1
        assert "-> check TINYCLIP_RAY_ADDRESS" in output
        assert "disk: artifacts" in output
