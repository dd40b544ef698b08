"""`tinyclip-server`: its errors, settings and tokens, and the helpers of the embedded service."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from tinyclip.cluster import FIXED_CPUS
from tinyclip.token_format import is_well_formed
from tinyclip_server import cli
from tinyclip_server.database.locks import sole_server
from tinyclip_server.database.migrate import WrongRevision, expect_head, upgrade
from tinyclip_server.local import supervisor
from tinyclip_server.local.machine import MARKER, PortTaken, free_port, listen, marked_processes, short_path
from tinyclip_server.local.ray import LocalRay
from tinyclip_server.settings import Settings


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that exits; return its exit status and standard error."""
    monkeypatch.setattr(sys, "argv", ["tinyclip-server", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    code = exit_info.value.code
    return code if isinstance(code, int) else 0, capsys.readouterr().err


class TestErrors:
    def test_a_taken_port_is_named_with_its_flag(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path), "--port", str(port))

        assert code == 1
        assert f"cannot listen on 127.0.0.1:{port}" in error
        assert "--port" in error

    def test_a_taken_serve_port_is_named_before_anything_starts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path), "--port", "0", "--serve-port", port)

        assert (code, "--serve-port" in error) == (1, True)
        assert not (tmp_path / "ray.json").exists()

    def test_a_data_directory_in_use_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with FileLock(tmp_path / "lock"):
            code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path))

        assert (code, error) == (
            1, f"tinyclip-server: another tinyclip-server uses {tmp_path}; stop it or choose another --data-dir\n"
        )

    def test_a_database_in_use_is_named_although_the_data_directory_is_another(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        monkeypatch.setenv("TINYCLIP_DATABASE_URL", f"sqlite:///{tmp_path / 'link' / 'shared.db'}")

        with sole_server(f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"):
            code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path / "second"), "--port", "0")

        assert (code, "another tinyclip-server uses the database" in error, "TINYCLIP_DATABASE_URL" in error) == (1, True, True)
        assert not (tmp_path / "second" / "ray.json").exists()

    def test_an_embedded_cluster_with_postgresql_must_be_allowed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TINYCLIP_DATABASE_URL", "postgresql://127.0.0.1:1/tinyclip")

        refused = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path / "data"))
        monkeypatch.setenv("TINYCLIP_EMBEDDED_RAY_WITH_POSTGRESQL", "1")

        assert (refused[0], "TINYCLIP_RAY_ADDRESS" in refused[1]) == (1, True)
        assert not (tmp_path / "data").exists()
        assert Settings().cluster_problem is None

    def test_another_artifacts_store_is_refused_with_the_one_of_the_database(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        settings = Settings(data_dir=tmp_path, artifacts=str(tmp_path / "theirs"))
        asyncio.run(upgrade(settings.async_database_url))
        asyncio.run(supervisor._check_store(settings))
        monkeypatch.setenv("TINYCLIP_ARTIFACTS", str(tmp_path / "others"))

        code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path), "--port", "0")

        assert (code, f"belongs to the artifacts store at {tmp_path / 'theirs'}" in error) == (1, True)
        assert not (tmp_path / "others").exists()

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
    def test_a_public_address_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, host: str
    ) -> None:
        code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path), "--host", host)

        assert (code, "can be reached from outside" in error) == (1, True)

    def test_a_bad_setting_is_named(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("TINYCLIP_PORT", "eighty")

        code, error = run(monkeypatch, capsys, "up")

        assert (code, "port: " in error, "'eighty'" in error) == (1, True, True)

    def test_a_missing_extra_is_reported_with_the_command(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr(cli, "ENGINE", ("a_missing_package",))

        code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path))

        assert (code, "pip install 'tinyclip[all]'" in error) == (1, True)

    def test_a_public_address_requires_tokens(self) -> None:
        supervisor._require_private_address(Settings(host="0.0.0.0", auth="tokens"))

        with pytest.raises(supervisor.CannotStart, match="TINYCLIP_AUTH=tokens"):
            supervisor._require_private_address(Settings(host="0.0.0.0"))

    def test_tokens_require_data_roots(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TINYCLIP_AUTH", "tokens")

        code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path / "new"))

        assert (code, "TINYCLIP_DATA_ROOTS must name" in error, '"/datasets"' in error) == (1, True, True)
        assert not (tmp_path / "new").exists()

    def test_a_root_in_the_services_own_folder_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TINYCLIP_DATA_ROOTS", json.dumps([str(tmp_path / "artifacts")]))

        code, error = run(monkeypatch, capsys, "up", "--data-dir", str(tmp_path))

        assert (code, "belongs to the service itself" in error) == (1, True)


class TestCreateToken:
    def test_only_the_secret_is_on_standard_output(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["tinyclip-server", "create-token", "--scope", "admin", "--scope", "metrics",
                                          "--project", "vision", "--data-dir", str(tmp_path)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        printed = capsys.readouterr()

        assert exit_info.value.code == 0
        assert is_well_formed(printed.out.rstrip("\n"))
        assert "admin, metrics in project vision, until " in printed.err
        assert printed.out.strip().encode() not in (tmp_path / "tinyclip.db").read_bytes()

    def test_a_database_of_another_revision_is_not_migrated(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        url = Settings(data_dir=tmp_path).async_database_url
        asyncio.run(upgrade(url, "0009"))

        code, error = run(monkeypatch, capsys, "create-token", "--scope", "admin", "--data-dir", str(tmp_path))

        assert (code, "at revision 0009" in error, "tinyclip-server migrate" in error) == (1, True, True)
        with pytest.raises(WrongRevision, match="0009"):
            asyncio.run(expect_head(url))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--scope", "all"], "--scope: Input should be 'read', 'write', 'infer', 'admin' or 'metrics' (got 'all')"),
            (["--scope", "read", "--project", "A b"], "--project: "),
            (["--scope", "read", "--days", "-3"], "--days: "),
            (["--scope", "read", "--name", ""], "--name: "),
        ],
    )
    def test_an_invalid_value_is_reported_with_its_option(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str],
        message: str,
    ) -> None:
        code, error = run(monkeypatch, capsys, "create-token", *arguments, "--data-dir", str(tmp_path))

        assert (code, message in error) == (1, True), error
        assert not (tmp_path / "tinyclip.db").exists()


class TestRayRequiresItsToken:
    """Ray starts with token authentication in any environment; `e2e/test_ports.py` checks a real cluster."""

    def test_the_environment_of_an_embedded_cluster(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another-cluster's")
        ray = LocalRay(Settings(data_dir=tmp_path))

        ray._write_token()
        environment = ray._environment()

        assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "ray-token"))
        assert "RAY_AUTH_TOKEN" not in environment
        assert stat.S_IMODE((tmp_path / "ray-token").stat().st_mode) == 0o600
        assert len((tmp_path / "ray-token").read_text()) == 64
        assert ray.settings()["ray_token_path"] == tmp_path / "ray-token"
        monkeypatch.setattr(ray, "address", "http://127.0.0.1:8265")
        assert not [argument for argument in ray._command() if "0.0.0.0" in argument]

    def test_a_token_whose_writing_was_killed_is_replaced(self, tmp_path: Path) -> None:
        ray = LocalRay(Settings(data_dir=tmp_path))
        ray.token_path.touch()
        ray.token_path.with_name("ray-token.new").write_text("12")

        ray._write_token()

        assert len(ray.token_path.read_text()) == 64
        assert stat.S_IMODE(ray.token_path.stat().st_mode) == 0o600


def test_migrate_creates_the_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _ = run(monkeypatch, capsys, "migrate", "--data-dir", str(tmp_path / "new"))

    assert code == 0
    assert (tmp_path / "new" / "tinyclip.db").exists()


class TestSettings:
    def test_flags_override_variables_which_override_the_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "server.toml").write_text("port = 1\nserve_port = 2\ntick_seconds = 3.0\n")
        monkeypatch.setenv("TINYCLIP_CONFIG", str(tmp_path / "server.toml"))
        monkeypatch.setenv("TINYCLIP_SERVE_PORT", "20")

        settings = Settings(port=100)

        assert (settings.port, settings.serve_port, settings.tick_seconds) == (100, 20, 3.0)

    @pytest.mark.parametrize(
        ("given", "used"),
        [
            ("sqlite:////x/y.db", "sqlite+aiosqlite:////x/y.db"),
            ("postgresql://u@h/d", "postgresql+asyncpg://u@h/d"),
            ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ],
    )
    def test_a_database_url_needs_no_driver(self, given: str, used: str) -> None:
        assert Settings(database_url=given).async_database_url == used

    def test_one_job_at_a_time_on_one_machine(self) -> None:
        assert Settings().running_limit == 1
        assert Settings(ray_address="http://ray:8265").running_limit == 16

    def test_the_address_of_the_embedded_cluster_does_not_make_it_a_production_one(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path)
        ray = LocalRay(settings)
        ray.address = "http://127.0.0.1:8265"

        running = settings.model_copy(update=ray.settings())

        assert running.ray_address == "http://127.0.0.1:8265"
        assert (running.embedded, running.running_limit) == (True, 1)


class TestResourcesOfAnEmbeddedCluster:
    def test_ray_counts_the_cpus_of_the_machine_and_replicas_reserve_none_of_them(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, driver_cpus=0.1)
        ray = LocalRay(settings)
        ray.address = "http://127.0.0.1:8265"

        options = dict(argument.split("=", 1) for argument in ray._command() if argument.startswith("--") and "=" in argument)

        assert int(options["--num-cpus"]) == max(2, os.cpu_count() or 1)
        assert json.loads(options["--resources"]) == {"tinyclip_serving_cpu": int(options["--num-cpus"]) + 2}
        assert settings.model_copy(update=ray.settings()).driver_cpus is None

    async def test_a_cluster_of_a_version_without_the_resource_of_replicas_is_not_adopted(self, tmp_path: Path) -> None:
        recorded = {"pid": os.getpid(), "address": "http://127.0.0.1:1", "serve_port": 8322}
        (tmp_path / "ray.json").write_text(json.dumps(recorded))

        assert await LocalRay(Settings(data_dir=tmp_path)).adopt() is False

    def test_only_the_planner_of_an_embedded_service_refuses_what_the_machine_cannot_run(self) -> None:
        embedded, production = Settings(), Settings(ray_address="http://ray:8265")

        assert embedded.planner_environment[FIXED_CPUS] == str(embedded.embedded_cpus)
        assert FIXED_CPUS not in production.planner_environment
        assert FIXED_CPUS not in embedded.worker_environment


class TestMachine:
    def test_free_port_returns_the_preferred_port_if_it_is_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert free_port(port) != port
        assert free_port(port) == port

    def test_another_port_is_none_that_an_outgoing_connection_may_take(self) -> None:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if first < 32_768:
            pytest.skip("this machine gives more ports than usual to outgoing connections")

        assert max(free_port() for _ in range(20)) < first

    def test_a_bound_port_cannot_be_bound_again(self) -> None:
        with listen("127.0.0.1", 0, "--port") as first:
            first.listen()
            with pytest.raises(PortTaken, match="--port"):
                listen("127.0.0.1", first.getsockname()[1], "--port")

    def test_a_path_too_long_for_a_socket_is_replaced(self, tmp_path: Path) -> None:
        deep = tmp_path / ("x" * 100)

        assert short_path(Path("/d/ray"), max_bytes=39) == Path("/d/ray")
        assert len(str(short_path(deep, max_bytes=39))) <= 39
        assert short_path(deep, max_bytes=39) == short_path(deep, max_bytes=39) != short_path(deep / "y", max_bytes=39)

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
    def test_only_marked_processes_are_found(self, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: str(tmp_path)}) as process:
            assert marked_processes(str(tmp_path)) == {process.pid}
            process.kill()

        assert marked_processes(str(tmp_path)) == set()
