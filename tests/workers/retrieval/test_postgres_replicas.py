"""Replicas over HTTP that search an index in PostgreSQL while it is changed and built anew."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.indexes import REFRESH_SECONDS

from tests.workers.index_jobs import ask, ask_updates, run, unit
from tests.workers.student_server import serving
from tests.workers.students import write_student

ITEMS, CHANGES = 30, 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_student(tmp_path / "models/student/1")


def test_every_answer_is_of_one_generation(tmp_path: Path, folder: Path, index_database: str) -> None:
    """Each change replaces all items at once; the last one is a new build. No answer is a mixture, none fails, none goes back."""
    ask(tmp_path, folder, None, store="pgvector", kind="hnsw")
    assert run(tmp_path) == 0
    _change(tmp_path, folder, 1)
    options = ServingOptions(name="demo", model="student@1", model_uri=str(folder), artifacts=str(tmp_path), engine="torch")

    with ExitStack() as stack:
        endpoints = [stack.enter_context(serving(options)).endpoint for _ in range(2)]
        asking = stack.enter_context(ThreadPoolExecutor(2))
        done = [False]
        answers = [asking.submit(_asked_until, endpoint, done) for endpoint in endpoints]
        for number in range(2, CHANGES + 1):
            _change(tmp_path, folder, number)
        ask(tmp_path, folder, None, build=2, store="pgvector", applied=CHANGES)
        assert run(tmp_path, 2) == 0
        time.sleep(REFRESH_SECONDS + 0.2)  # where the old tables were in use, they answer until somebody looks again
        done[0] = True
        seen = [answer.result() for answer in answers]

    for of_one_replica in seen:
        assert of_one_replica == sorted(of_one_replica)
        assert of_one_replica[0] in (1, 2)
        assert of_one_replica[-1] == CHANGES + 1


def _change(root: Path, folder: Path, number: int) -> None:
    rows = unit(ITEMS, 24, seed=number)
    items = [{"id": f"v{i}", "vector": row.tolist(), "metadata": {"change": number}} for i, row in enumerate(rows)]
    ask_updates(root, folder, {number: {"items": items}}, store="pgvector", kind="hnsw")
    assert run(root, f"u{number}") == 0


def _asked_until(endpoint: str, done: list[bool]) -> list[int]:
    """The change that each answer is of; an empty one is of the build after the last."""
    seen = []
    while True:
        last = done[0]
        answer = httpx.post(f"{endpoint}/search", json={"index": "gallery", "text": "a cat", "top_k": 1000}, timeout=60)
        assert answer.status_code == 200, answer.text
        hits: list[Any] = answer.json()["hits"]
        changes = {hit["metadata"]["change"] for hit in hits}
        assert (len(hits), len(changes)) in ((ITEMS, 1), (0, 0))
        seen.append(changes.pop() if changes else CHANGES + 1)
        if last:
            return seen
