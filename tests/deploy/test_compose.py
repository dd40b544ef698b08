"""docker-compose.yml, the image and the KubeRay example: what can be seen of them without a container engine."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from tinyclip_server.settings import Settings

from tests.postgres import connected_to, database

ROOT = Path(__file__).parents[2]
ASKED = (
    "POSTGRES_PASSWORD", "INDEX_PASSWORD", "RAY_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY", "GRAFANA_PASSWORD", "METRICS_TOKEN",
)  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((ROOT / "deploy" / "kuberay" / "tinyclip.yaml").read_text())
    return {document["kind"]: document for document in found}


def environments(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: service.get("environment", {}) for name, service in compose["services"].items()}


def expect_settings(names: set[str]) -> None:
    """Each `TINYCLIP_*` variable is a setting that there is."""
    known = {f"TINYCLIP_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in names if name.startswith("TINYCLIP_")} <= known


class TestCompose:
    def test_compose_itself_takes_it(self) -> None:
        command = _compose_command()
        environment = os.environ | dict.fromkeys(ASKED, "given")
        arguments = ["-f", str(ROOT / "docker-compose.yml"), "--profile", "cpu", "--profile", "gpu", "config", "--quiet"]

        ran = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=60)

        assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")

    def test_every_part_is_there_and_every_image_pinned(self, compose: dict[str, Any]) -> None:
        parts = {"postgres", "s3", "ray-head", "ray-worker-cpu", "ray-worker-gpu", "control-plane", "prometheus", "grafana"}

        assert parts <= set(compose["services"])
        images = {service["image"] for service in compose["services"].values()} - {"tinyclip:local"}
        assert [image for image in images if not re.search(r":(\$\{\w+:-)?v?\d+\.\d+", image)] == []

    def test_what_is_depended_on_can_be_waited_for(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        for service in services.values():
            for name, how in service.get("depends_on", {}).items():
                assert how["condition"] != "service_healthy" or "healthcheck" in services[name]

    def test_nothing_is_published_beyond_this_machine(self, compose: dict[str, Any]) -> None:
        ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

        assert ports
        assert [port for port in ports if not port.startswith("127.0.0.1:")] == []

    def test_every_secret_is_asked_for_and_stands_in_the_example(self, compose: dict[str, Any]) -> None:
        asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
        asked |= {secret["environment"] for secret in compose["secrets"].values()}
        example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy" / "env.example").read_text(), re.MULTILINE))

        assert asked == set(ASKED)
        assert example == dict.fromkeys(ASKED, "")

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


class TestImage:
    def test_it_is_pinned_not_root_and_held_to_the_constraints(self) -> None:
        lines = (ROOT / "deploy" / "Dockerfile").read_text()

        assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", lines, re.MULTILINE)
        last_stage = lines.rsplit("\nFROM ", 1)[1]
        assert re.search(r"^USER tinyclip$", last_stage, re.MULTILINE)
        assert "-c constraints.txt" in lines

    def test_what_it_copies_is_there_and_not_ignored(self) -> None:
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
        sources = {source for line in copied for source in line.split()}

        assert sources == allowed
        assert [source for source in sources if not (ROOT / source).exists()] == []

    def test_the_requirements_that_it_reads_are_requirements(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        code = re.search(r"-c '(import tomllib.*?)' > needs.txt", (ROOT / "deploy" / "Dockerfile").read_text())
        assert code

        ran = subprocess.run([shutil.which("python") or "python3", "-c", code[1]], cwd=ROOT, capture_output=True, text=True)

        listed = [Requirement(line).name for line in ran.stdout.splitlines()]
        assert {"httpx", "fastapi", "torch", "s3fs"} <= set(listed)
        assert len(listed) >= len(project["dependencies"])


class TestKubeRay:
    def test_there_is_a_cluster_two_servers_and_a_service(self, manifests: dict[str, dict[str, Any]]) -> None:
        assert set(manifests) == {"RayCluster", "Deployment", "Service"}
        assert manifests["Deployment"]["spec"]["replicas"] == 2
        labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert manifests["Service"]["spec"]["selector"].items() <= labels.items()

    def test_the_versions_of_ray_are_one(self, manifests: dict[str, dict[str, Any]]) -> None:
        assert f"ray=={manifests['RayCluster']['spec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()

    def test_the_settings_are_settings_and_the_probes_routes(self, manifests: dict[str, dict[str, Any]]) -> None:
        pod = manifests["Deployment"]["spec"]["template"]["spec"]
        (server,) = pod["containers"]
        expect_settings({variable["name"] for variable in server["env"]})

        assert server["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
        cluster = manifests["RayCluster"]["metadata"]["name"]
        assert {"name": "TINYCLIP_RAY_ADDRESS", "value": f"http://{cluster}-head-svc:8265"} in server["env"]

    def test_every_node_asks_for_the_token(self, manifests: dict[str, dict[str, Any]]) -> None:
        spec = manifests["RayCluster"]["spec"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (node,) = group["template"]["spec"]["containers"]
            assert {"name": "RAY_AUTH_MODE", "value": "token"} in node["env"]


def _compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    pytest.skip("neither docker-compose nor docker compose is installed")
