"""Prometheus and Grafana: their files load, and they use only metrics that are exported."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import database_url, dialect, migrated, start
from tests.server.events import Worker, progress
from tests.server.service import Service

__all__ = ["database_url", "dialect", "migrated", "start"]  # fixtures of the control plane's tests

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OF_PROMETHEUS = {"up"}
FUNCTIONS = {
    "sum", "max", "min", "rate", "increase", "topk", "histogram_quantile", "by", "absent", "le", "and", "or",
}


@pytest.fixture
async def service(start: Any) -> Service:
    return await start(schedule=True, tick_seconds=60)


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "tinyclip.json").read_text())


def queries() -> list[str]:
    """Return the queries of the dashboard's panels and of the alerts."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return panels + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def names_in(query: str) -> set[str]:
    """The metrics that a query reads: words that are no function, label or text."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|(by|without) *\([^)]*\)", " ", query)
    return set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - FUNCTIONS


def used() -> set[str]:
    return {name for query in queries() for name in names_in(query)} - OF_PROMETHEUS


class TestNames:
    async def test_ours_are_exported_by_the_server(self, service: Service) -> None:
        job = await service.submit()
        await service.tick()
        worker = Worker(service.artifacts, await service.job(job["id"]))
        worker.start()
        worker.emit(progress(1, 0))
        await service.tick()
        text = (await service.http.get("/metrics")).text
        exported = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
        ours = {name for name in used() if not name.startswith("ray_")}

        assert ours - exported == set()
        assert len(ours) > 10

    def test_rays_are_in_rays_own_dashboards_or_are_the_workers(self) -> None:
        found = find_spec("ray")
        if found is None or found.origin is None:
            pytest.skip("ray is not installed")
        folder = Path(found.origin).parent / "dashboard" / "modules" / "metrics" / "dashboards"
        text = "".join(path.read_text() for path in folder.glob("*_panels.py"))
        reporting = (ROOT / "workers" / "tinyclip_workers" / "training" / "observation" / "reporting.py").read_text()
        gauges = re.search(r"^GAUGES = \{(.*)\}$", reporting, re.MULTILINE)
        assert gauges
        of_workers = {f"ray_tinyclip_{name}" for name in re.findall(r'"(\w+)":', gauges[1])}
        watch = (ROOT / "workers" / "tinyclip_workers" / "serving" / "replica" / "metrics.py").read_text()
        exported = [f"ray_{name}" for name in re.findall(r'^    "(tinyclip_serve_\w+)":', watch, re.MULTILINE)]
        assert [name for name in exported if not any(one.startswith(name) for one in used())] == []
        of_workers |= {name + suffix for name in exported for suffix in ("", "_total", "_bucket", "_sum", "_count")}
        rays = {name for name in used() if name.startswith("ray_")} - of_workers

        assert [name for name in rays if not re.search(rf"\b{name}\b", text)] == []
        assert len(rays) > 5


class TestGrafana:
    def test_every_panel_reads_the_provisioned_source(self) -> None:
        sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
        uid = sources["datasources"][0]["uid"]
        panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]

        assert {panel["datasource"]["uid"] for panel in panels} == {uid}
        assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
        rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
        assert {"Jobs", "Training", "Serving", "Ray"} <= set(rows)

    def test_the_files_are_where_compose_and_the_provider_look(self) -> None:
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        provider = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "dashboards" / "tinyclip.yml").read_text())
        mounts = dict(volume.removesuffix(":ro").split(":", 1)[::-1] for volume in compose["services"]["grafana"]["volumes"])

        assert (ROOT / mounts[provider["providers"][0]["options"]["path"]] / "tinyclip.json").is_file()
        assert (ROOT / mounts["/etc/grafana/provisioning"] / "datasources").is_dir()


class TestPrometheus:
    def test_it_looks_where_compose_has_the_servers_and_ray(self) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        ours, rays = config["scrape_configs"]

        assert set(ours["dns_sd_configs"][0]["names"]) <= set(compose["services"])
        discovery = rays["http_sd_configs"][0]
        assert discovery["url"] == "http://ray-head:8265/api/prometheus/sd"
        assert discovery["authorization"]["credentials_file"] == "/run/secrets/ray_token"
        assert ours["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
        assert compose["services"]["prometheus"]["secrets"] == ["ray_token", "metrics_token"]

    @pytest.mark.parametrize("arguments", [("config", "--syntax-only", "prometheus.yml"), ("rules", "alerts.yml")])
    def test_promtool_takes_it(self, arguments: tuple[str, ...]) -> None:
        if not shutil.which("promtool"):
            pytest.skip("promtool is not installed")

        ran = subprocess.run(
            ["promtool", "check", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60
        )

        assert ran.returncode == 0, ran.stdout + ran.stderr

    def test_every_query_parses(self, tmp_path: Path) -> None:
        if not shutil.which("promtool"):
            pytest.skip("promtool is not installed")
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
        (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))

        command = ["promtool", "check", "rules", "rules.yml"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"{len(queries())} rules found" in ran.stdout
