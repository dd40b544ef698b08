"""A deployment on a real Ray Serve: the differences from the same application without Serve."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.replica.metrics import METRICS

from tests.ports import free_ports
from tests.workers.student_server import serving_options
from tests.workers.students import base64_image, encoded, random_image, square_of

pytestmark = pytest.mark.ray

T = TypeVar("T")


@dataclass
class ServedOnRay:
    http: httpx.Client
    ray_dir: Path
    metrics_port: int

    def samples(self) -> list[Sample]:
        """Return the samples that Ray's agent exposes to Prometheus."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False, timeout=30).text
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.fixture(scope="module")
def served(artifacts: Path) -> Iterator[ServedOnRay]:
    [port] = free_ports(1)
    args = serving_options(artifacts, batch_wait_s=0.05).model_dump(exclude_unset=True)
    ray_dir = tempfile.mkdtemp(prefix="tc-ray-", dir="/tmp")  # short, because Ray creates sockets below it
    environment = {
        **os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tests.workers.serve_process", json.dumps(args), str(port), ray_dir]
    log = open(artifacts / "serve.log", "w+")  # noqa: SIM115 -- closed below, after the process
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
    try:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if line.startswith("ready ")), None)
        if ready is None:
            pytest.fail(f"Serve did not start: {Path(log.name).read_text()[-3000:]}")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/demo", timeout=30, trust_env=False) as client:
            yield ServedOnRay(client, Path(ray_dir), int(ready.split()[1]))
    finally:
        process.communicate(timeout=60)
        log.close()
        shutil.rmtree(ray_dir, ignore_errors=True)


def test_concurrent_requests_get_their_own_answers(served: ServedOnRay, engine: Engine) -> None:
    def embed(seed: int) -> list[float]:
        images = [base64_image(seed), base64_image(seed + 1)]
        answer = served.http.post("/embeddings", json={"input": images, "modality": "image"})
        return [value for item in answer.json()["data"] for value in item["embedding"]]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(embed, range(24)))

    expected = engine.encode_image(np.stack([square_of(random_image(seed)) for seed in range(25)]))
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(np.reshape(answer, (2, -1)), expected[seed : seed + 2], atol=1e-5)


def test_every_kind_of_route_is_reachable(served: ServedOnRay) -> None:
    body = {"image": base64_image(0), "labels": ["cat", "dog"]}
    form = served.http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"labels": ["cat", "dog"]})
    root = f"{str(served.http.base_url).rstrip('/')}"

    assert form.json() == served.http.post("/zero-shot", json=body).json()
    assert httpx.get(root, trust_env=False).headers["content-type"] == "text/html; charset=utf-8"
    assert served.http.get("/openapi.json").json()["servers"] == [{"url": "/demo"}]
    assert served.http.put("/label-sets/pets", json={"labels": ["cat", "dog"]}).status_code == 201
    by_set = served.http.post("/zero-shot", json={"image": base64_image(0), "label_set": "pets"})
    assert by_set.json() == form.json()
    assert served.http.delete("/label-sets/pets").status_code == 204  # other tests share the store


def test_the_request_id_passes_the_proxy_to_the_log_and_the_answer(served: ServedOnRay) -> None:
    good = served.http.post("/embeddings", json={"input": "a private text"}, headers={"X-Request-ID": "mine-7"})
    bad = served.http.post("/embeddings", json={}, headers={"X-Request-ID": "mine-8"})

    assert good.headers.get_list("x-request-id") == ["mine-7"]
    assert bad.headers.get_list("x-request-id") == [bad.json()["request_id"]] == ["mine-8"]
    lines = wait_for(lambda: [line for line in access_lines(served) if line["request_id"] in ("mine-7", "mine-8")], 2)
    assert [(line["route"], line["status"], line["deployment"]) for line in lines] == [
        ("/embeddings", 200, "demo"), ("/embeddings", 422, "demo"),
    ]  # fmt: skip
    assert "a private text" not in json.dumps(access_lines(served))


def access_lines(served: ServedOnRay) -> list[dict[str, Any]]:
    """Return the access log that the replicas wrote to their standard error."""
    lines = []
    for path in served.ray_dir.glob("session_latest/logs/worker-*.err"):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"time"')]
    return lines


def test_prometheus_metrics(served: ServedOnRay) -> None:
    labels = [f"label {i}" for i in range(7)]
    for _ in range(2):
        served.http.post("/zero-shot", json={"image": base64_image(0), "labels": labels})
    served.http.post("/zero-shot", json={"image": "?", "labels": labels})

    def values(name: str, **tags: str) -> list[float]:
        expected = {"deployment": "demo", **tags}
        return [one.value for one in served.samples() if one.name == f"ray_{name}" and expected.items() <= one.labels.items()]

    wait_for(lambda: values("tinyclip_serve_requests_total", route="/zero-shot", status="422"), 1)
    assert sum(values("tinyclip_serve_requests_total", route="/zero-shot", status="200")) >= 2
    assert sum(values("tinyclip_serve_request_seconds_count", route="/zero-shot")) >= 3
    for phase in ("body", "decode", "wait", "encode", "labels"):
        assert sum(values("tinyclip_serve_phase_seconds_count", route="/zero-shot", phase=phase)) >= 2
    assert sum(values("tinyclip_serve_batch_items_count", kind="images")) >= 2
    assert sum(values("tinyclip_serve_cached_texts_total", result="hit")) >= 7
    assert sum(values("tinyclip_serve_cached_texts_total", result="miss")) >= 7
    assert sum(values("tinyclip_serve_waiting_items", kind="images")) == 0
    names = {one.name for one in served.samples()}
    of_every_model = [name for name in METRICS if name != "tinyclip_serve_unknown_tokens"]  # it counts for a reduced vocabulary
    assert [name for name in of_every_model if not any(known.startswith(f"ray_{name}") for known in names)] == []


def wait_for(find: Callable[[], list[T]], number: int) -> list[T]:
    """Call `find` until it returns so many items."""
    for _ in range(300):
        if len(found := find()) >= number:
            return found
        time.sleep(0.1)
    raise AssertionError(f"after 30 s there is only {find()}")
