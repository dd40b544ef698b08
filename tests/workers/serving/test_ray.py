"""A student on a real Ray Serve: what differs from the same application in a process of its own."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.replica.metrics import METRICS

from tests.workers.students import encoded, random_image, square_of, write_student

pytestmark = pytest.mark.ray


@dataclass
class OnRay:
    http: httpx.Client
    ray_dir: Path
    metrics_port: int

    def samples(self) -> list[Sample]:
        """What Prometheus would read of Ray's agent now."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False, timeout=30).text
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_student(root / "models/student/1")
    return root


@pytest.fixture(scope="module")
def engine(root: Path) -> Engine:
    return load_engine(str(root / "models/student/1"))


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[OnRay]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model_uri = str(root / "models/student/1")
    args = {
        "name": "demo", "model": "student@1", "model_uri": model_uri, "artifacts": str(root), "batch_wait_s": 0.05,
        "engine": "torch",
    }  # fmt: skip
    ray_dir = tempfile.mkdtemp(prefix="tc-ray-", dir="/tmp")  # short: Ray makes sockets below it
    environment = {
        **os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tests.workers.serve_process", json.dumps(args), str(port), ray_dir]
    log = open(root / "serve.log", "w+")  # noqa: SIM115 -- closed below, after the process
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
    try:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if line.startswith("ready ")), None)
        if ready is None:
            pytest.fail(f"Serve did not start: {Path(log.name).read_text()[-3000:]}")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/demo", timeout=30, trust_env=False) as client:
            yield OnRay(client, Path(ray_dir), int(ready.split()[1]))
    finally:
        process.communicate(timeout=60)
        log.close()
        shutil.rmtree(ray_dir, ignore_errors=True)


def image(seed: int) -> str:
    return base64.b64encode(encoded(random_image(seed))).decode()


def test_concurrent_requests_are_not_mixed_up(served: OnRay, engine: Engine) -> None:
    def ask(seed: int) -> list[float]:
        answer = served.http.post("/embeddings", json={"input": [image(seed), image(seed + 1)], "modality": "image"})
        return [value for item in answer.json()["data"] for value in item["embedding"]]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))

    expected = engine.encode_image(np.stack([square_of(random_image(seed)) for seed in range(25)]))
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(np.reshape(answer, (2, -1)), expected[seed : seed + 2], atol=1e-5)


def test_every_kind_of_route_is_reached(served: OnRay) -> None:
    body = {"image": image(0), "labels": ["cat", "dog"]}
    form = served.http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": ["cat", "dog"]})
    root = f"{str(served.http.base_url).rstrip('/')}"

    assert form.json() == served.http.post("/zero-shot", json=body).json()
    assert httpx.get(root, trust_env=False).headers["content-type"] == "text/html; charset=utf-8"
    assert served.http.get("/openapi.json").json()["servers"] == [{"url": "/demo"}]
    assert served.http.put("/label-sets/pets", json={"labels": ["cat", "dog"]}).status_code == 201
    by_set = served.http.post("/zero-shot", json={"image": image(0), "label_set": "pets"})
    assert by_set.json() == form.json()


def test_an_id_goes_through_the_proxy_to_the_log_and_back(served: OnRay) -> None:
    good = served.http.post("/embeddings", json={"input": "a private text"}, headers={"X-Request-ID": "mine-7"})
    bad = served.http.post("/embeddings", json={}, headers={"X-Request-ID": "mine-8"})

    assert good.headers.get_list("x-request-id") == ["mine-7"]
    assert bad.headers.get_list("x-request-id") == [bad.json()["request_id"]] == ["mine-8"]
    lines = waited_for(lambda: [line for line in access_lines(served) if line["request_id"] in ("mine-7", "mine-8")], 2)
    assert [(line["route"], line["status"], line["deployment"]) for line in lines] == [
        ("/embeddings", 200, "demo"), ("/embeddings", 422, "demo"),
    ]  # fmt: skip
    assert "a private text" not in json.dumps(access_lines(served))


def access_lines(served: OnRay) -> list[dict[str, Any]]:
    """What the replicas wrote to their standard error."""
    lines = []
    for path in served.ray_dir.glob("session_latest/logs/worker-*.err"):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"time"')]
    return lines


def test_prometheus_is_told(served: OnRay) -> None:
    labels = [f"label {i}" for i in range(7)]
    for _ in range(2):
        served.http.post("/zero-shot", json={"image": image(0), "labels": labels})
    served.http.post("/zero-shot", json={"image": "?", "labels": labels})

    def told(name: str, **tags: str) -> list[float]:
        wanted = {"deployment": "demo", **tags}
        return [one.value for one in served.samples() if one.name == f"ray_{name}" and wanted.items() <= one.labels.items()]

    waited_for(lambda: told("tinyclip_serve_requests_total", route="/zero-shot", status="422"), 1)
    assert sum(told("tinyclip_serve_requests_total", route="/zero-shot", status="200")) >= 2
    assert sum(told("tinyclip_serve_request_seconds_count", route="/zero-shot")) >= 3
    for phase in ("body", "decode", "wait", "encode", "labels"):
        assert sum(told("tinyclip_serve_phase_seconds_count", route="/zero-shot", phase=phase)) >= 2
    assert sum(told("tinyclip_serve_batch_items_count", kind="images")) >= 2
    assert sum(told("tinyclip_serve_cached_texts_total", result="hit")) >= 7
    assert sum(told("tinyclip_serve_cached_texts_total", result="miss")) >= 7
    assert sum(told("tinyclip_serve_waiting_items", kind="images")) == 0
    names = {one.name for one in served.samples()}
    assert [name for name in METRICS if not any(known.startswith(f"ray_{name}") for known in names)] == []


def waited_for(look: Any, number: int) -> Any:
    """What `look` finds once there is so much of it."""
    for _ in range(300):
        if len(found := look()) >= number:
            return found
        time.sleep(0.1)
    raise AssertionError(f"after 30 s there is only {look()}")
