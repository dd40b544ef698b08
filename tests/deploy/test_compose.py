"""docker-compose.yml: what can be checked without a container engine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tinyclip_server.settings import Settings
from tinyclip_workers.data.stream.loader import PREFETCH_BYTES

from tests.deploy.settings import expect_settings
from tests.postgres import connected_to, database

ROOT = Path(__file__).parents[2]
ASKED = ("POSTGRES_PASSWORD", "INDEX_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "GRAFANA_PASSWORD")
NODES = ("ray-head", "ray-worker-cpu", "ray-worker-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def environments(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: service.get("environment", {}) for name, service in compose["services"].items()}


def networks(compose: dict[str, Any], name: str) -> list[str]:
    """Return the networks of a service. One without any would be in the default network with all others like it."""
    found: list[str] = compose["services"][name]["networks"]
    assert found
    assert set(found) <= set(compose["networks"])
    return found


class TestCompose:
    def test_compose_itself_takes_it(self) -> None:
        command = _compose_command()
        environment = os.environ | dict.fromkeys(ASKED, "given")
        arguments = ["-f", str(ROOT / "docker-compose.yml"), "--profile", "cpu", "--profile", "gpu", "config", "--quiet"]

        ran = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=60)

        assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")

    def test_every_part_is_there_and_every_image_pinned(self, compose: dict[str, Any]) -> None:
        parts = {"postgres", "s3", "s3-storage", *NODES, "control-plane", "prometheus", "grafana"}

        assert parts <= set(compose["services"])
        images = {service["image"] for service in compose["services"].values()} - {"tinyclip:local"}
        assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []

    def test_haproxy_is_started_with_its_statistics_and_metrics_on_loopback(self, compose: dict[str, Any]) -> None:
        script = "/opt/tinyclip/bin/tinyclip-haproxy"

        assert {environments(compose)[node]["RAY_SERVE_HAPROXY_BINARY_PATH"] for node in NODES} == {script}
        assert f"-m tinyclip_server.local.haproxy {script}\n" in (ROOT / "deploy/Dockerfile").read_text()

    def test_a_node_with_eight_gpus_has_shared_memory_for_the_batches_of_all(self, compose: dict[str, Any]) -> None:
        limit = compose["services"]["ray-worker-gpu"]["shm_size"]

        assert int(limit.removesuffix("gb")) << 30 >= 2 * 8 * PREFETCH_BYTES

    def test_what_is_depended_on_can_be_waited_for(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        for service in services.values():
            for name, how in service.get("depends_on", {}).items():
                assert how["condition"] != "service_healthy" or "healthcheck" in services[name]

    def test_nothing_is_published_beyond_this_machine(self, compose: dict[str, Any]) -> None:
        ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

        assert ports
        assert [port for port in ports if not port.startswith("127.0.0.1:")] == []

    def test_no_service_has_privileges_or_a_writable_root(self, compose: dict[str, Any]) -> None:
        for name, service in compose["services"].items():
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert not {"privileged", "pid", "ipc", "network_mode", "userns_mode"} & set(service), name
        added = {name for name, service in compose["services"].items() if "cap_add" in service}
        assert added == {"s3-storage"}

    def test_only_the_forwarder_of_its_s3_port_reaches_the_storage(self, compose: dict[str, Any]) -> None:
        reaching = {name for name in compose["services"] if set(networks(compose, name)) & set(networks(compose, "s3-storage"))}
        forwarded = (ROOT / "deploy" / "s3" / "nginx.conf").read_text()

        assert reaching == {"s3-storage", "s3"}
        assert compose["networks"]["storage"] == {"internal": True}
        assert re.findall(r"listen (\S+);", forwarded) == ["8333"]
        assert re.findall(r"s3-storage:(\d+)", forwarded) == ["8333"]
        assert "-s3.port=8333" in compose["services"]["s3-storage"]["command"]

    @pytest.mark.parametrize(
        ("service", "expected"),
        [
            ("postgres", {"migrate", "control-plane", *NODES}),
            ("s3", {"s3-storage", "bucket", "control-plane", *NODES}),
            ("ray-worker-gpu", {"postgres", "s3", "bucket", "migrate", "control-plane", "prometheus", *NODES}),
            ("grafana", {"ray-head", "prometheus"}),
        ],
    )
    def test_a_service_is_reached_by_those_that_need_it(
        self, compose: dict[str, Any], service: str, expected: set[str]
    ) -> None:
        own = set(networks(compose, service))

        assert {name for name in compose["services"] if own & set(networks(compose, name))} == expected | {service}

    def test_postgres_is_not_healthy_before_its_database_is_there(self, compose: dict[str, Any]) -> None:
        # While initdb's scripts run, the server listens on its socket only.
        assert "-h 127.0.0.1" in compose["services"]["postgres"]["healthcheck"]["test"]

    def test_every_secret_is_asked_for_and_stands_in_the_example(self, compose: dict[str, Any]) -> None:
        asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
        text = (ROOT / "deploy" / "env.example").read_text()
        example = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))

        assert asked == set(ASKED)
        assert example == dict.fromkeys(ASKED, "")
        files = {f"./{file}" for file in re.findall(r"secrets/\w+", text)}
        assert {secret["file"] for secret in compose["secrets"].values()} == files

    def test_a_service_with_a_read_only_root_gets_its_secrets_as_files(self, compose: dict[str, Any]) -> None:
        # Others are copied into the container, which fails: https://github.com/docker/compose/issues/12303
        used = {name for service in compose["services"].values() for name in service.get("secrets", [])}

        assert {tuple(compose["secrets"][name]) for name in used} == {("file",)}

    def test_the_control_plane_is_given_settings_that_there_are(
        self, compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for environment in environments(compose).values():
            expect_settings(set(environment))
        given = [name for name in environments(compose)["control-plane"] if name.startswith("TINYCLIP_")]
        monkeypatch.setenv("TINYCLIP_CONFIG", os.devnull)
        for name in given:
            monkeypatch.setenv(name, environments(compose)["control-plane"][name])

        assert Settings().model_fields_set == {name.removeprefix("TINYCLIP_").lower() for name in given}

    def test_ray_knows_the_database_of_indexes_and_no_other(self, compose: dict[str, Any]) -> None:
        for name in ("ray-head", "ray-worker-cpu", "ray-worker-gpu"):
            urls = [value for value in environments(compose)[name].values() if str(value).startswith("postgresql:")]
            assert urls == [environments(compose)["control-plane"]["TINYCLIP_INDEX_DATABASE_URL"]]
            assert "POSTGRES_PASSWORD" not in urls[0]

    def test_the_control_plane_asks_for_tokens(self, compose: dict[str, Any]) -> None:
        environment = environments(compose)["control-plane"]

        assert environment["TINYCLIP_AUTH"] == "tokens"
        assert json.loads(environment["TINYCLIP_DATA_ROOTS"])  # without any, the service does not start
        assert "TINYCLIP_ALLOW_PUBLIC" not in environment

    def test_every_node_of_ray_asks_for_the_token(self, compose: dict[str, Any]) -> None:
        for name, service in compose["services"].items():
            if str(service.get("command", "")).startswith("ray start"):
                assert service["environment"]["RAY_AUTH_MODE"] == "token", name
                assert service["secrets"] == ["ray_token"], name


class TestDatabaseOfIndexes:
    """`deploy/postgres/indexes.sql`, which the container of PostgreSQL runs at its first start."""

    def test_its_role_has_it_with_pgvector_and_sees_nothing_else(self, postgres: str) -> None:
        psycopg = pytest.importorskip("psycopg")
        psql = shutil.which("psql") or pytest.skip("no psql to run the file with")
        with database(postgres, extension=False) as other:
            own = other.rpartition("/")[2]
            url = urlsplit(postgres)._replace(path=f"/{own}").geturl()
            command = [psql, "-q", url, "-f", ROOT / "deploy" / "postgres" / "indexes.sql"]
            try:
                ran = subprocess.run(command, env=os.environ | {"INDEX_PASSWORD": "it's"}, capture_output=True, text=True)
                assert (ran.returncode, ran.stderr) == (0, "")
                as_role = {"user": "tinyclip_indexes", "password": "it's"}
                with psycopg.connect(postgres, dbname="indexes", **as_role) as connection:
                    [(version,)] = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchall()
                    connection.execute("CREATE TABLE mine (v vector(2))")
                assert tuple(map(int, version.split("."))) >= (0, 8)
                with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                    psycopg.connect(postgres, dbname=own, **as_role)
            finally:
                with connected_to(postgres) as connection:
                    connection.execute("DROP DATABASE IF EXISTS indexes WITH (FORCE)")
                    connection.execute("DROP ROLE IF EXISTS tinyclip_indexes")


def _compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    pytest.skip("neither docker-compose nor docker compose is installed")
