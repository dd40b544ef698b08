"""Replicas over HTTP that search an index in PostgreSQL while it is updated and rebuilt."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica import indexes

from tests.workers.index_jobs import request_build, request_updates, run_job, unit_vectors
from tests.workers.student_server import serving
from tests.workers.students import write_student

ITEMS, CHANGES = 30, 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_student(tmp_path / "models/student/1")


def test_every_search_sees_one_generation(
    tmp_path: Path, folder: Path, index_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change replaces all items, the last one by a new build. No search fails, mixes changes or returns an older one."""
    monkeypatch.setattr(indexes, "REFRESH_SECONDS", 0.2)
    request_build(tmp_path, folder, None, store="pgvector", kind="hnsw")
    assert run_job(tmp_path) == 0
    _change(tmp_path, folder, 1)
    options = ServingOptions(name="demo", model="student@1", model_uri=str(folder), artifacts=str(tmp_path), engine="torch")

    with ExitStack() as stack:
        endpoints = [stack.enter_context(serving(options)).endpoint for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        begun, done = [threading.Event() for _ in endpoints], threading.Event()
        searches = [pool.submit(_search_until, *each, done) for each in zip(endpoints, begun, strict=True)]
        assert all(event.wait(60) for event in begun)  # the first search may be slow
        for number in range(2, CHANGES + 1):
            _change(tmp_path, folder, number)
        request_build(tmp_path, folder, None, build=2, store="pgvector", applied=CHANGES)
        assert run_job(tmp_path, 2) == 0
        time.sleep(0.4)  # until replicas check for a newer generation: tables that are in use are dropped later
        done.set()
        seen = [search.result() for search in searches]

    for changes in seen:
        assert changes == sorted(changes)
        assert changes[0] in (1, 2)
        assert changes[-1] == CHANGES + 1


def _change(root: Path, folder: Path, number: int) -> None:
    rows = unit_vectors(ITEMS, 24, seed=number)
    items = [{"id": f"v{i}", "vector": row.tolist(), "metadata": {"change": number}} for i, row in enumerate(rows)]
    request_updates(root, folder, {number: {"items": items}}, store="pgvector", kind="hnsw")
    assert run_job(root, f"u{number}") == 0


def _search_until(endpoint: str, begun: threading.Event, done: threading.Event) -> list[int]:
    """Return the change that each search saw; an empty result is of the build after the last change."""
    seen = []
    while True:
        last = done.is_set()
        response = httpx.post(f"{endpoint}/search", json={"index": "gallery", "text": "a cat", "top_k": 1000}, timeout=60)
        assert response.status_code == 200, response.text
        hits: list[Any] = response.json()["hits"]
        changes = {hit["metadata"]["change"] for hit in hits}
        assert (len(hits), len(changes)) in ((ITEMS, 1), (0, 0))
        seen.append(changes.pop() if changes else CHANGES + 1)
        begun.set()
        if last:
            return seen
