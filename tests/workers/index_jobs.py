"""What the control plane asks of an index's jobs, and the jobs run in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import Condition
from tinyclip.schemas import JSON
from tinyclip_workers import jobs
from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import IndexReader
from tinyclip_workers.serving.replica.indexes import Indexes
from tinyclip_workers.types import Matrix

EMBED_DIM = 24


def ask(root: Path | str, model_uri: Path, shards: str | None, build: int = 1, **changes: Any) -> None:
    """A build. `shards` null: of an empty index."""
    request = {
        "name": "gallery", "job": f"b{build}", "build": build, "model": "student@1", "model_uri": str(model_uri),
        "embed_dim": EMBED_DIM, "source": {"shards": shards} if shards else None, **changes,
    }
    ArtifactsStore(str(root)).write_bytes("indexes/gallery/request.json", json.dumps(request).encode())


def ask_updates(root: Path | str, model_uri: Path, updates: dict[int, JSON], build: int = 1, **changes: Any) -> None:
    """Updates by number, all of them waiting."""
    store = ArtifactsStore(str(root))
    for number, update in updates.items():
        store.write_bytes(f"indexes/gallery/updates/{number}.json", json.dumps(update).encode())
    files = [{"number": number, "file": f"{number}.json"} for number in updates]
    ask(root, model_uri, None, build, job=f"u{max(updates)}", updates=files, **changes)


def arguments(root: Path | str, job: str) -> list[str]:
    return ["index", "--artifacts", str(root), "--index", "gallery", "--job", job]


def run(root: Path | str, job: str | int = 1) -> int:
    return jobs.main(arguments(root, f"b{job}" if isinstance(job, int) else job))


def events(root: Path, job: str | int = 1) -> list[JSON]:
    name = f"b{job}" if isinstance(job, int) else job
    segments = sorted((root / f"indexes/gallery/jobs/{name}/events").glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def current(root: Path | str, model: str = "student@1") -> IndexReader:
    return Indexes(str(root)).get("gallery", model)


def generation(root: Path | str) -> Generation:
    found = newest(ArtifactsStore(str(root)), "gallery")
    assert found is not None
    return found


def unit(*shape: int, seed: int = 0) -> Matrix:
    """Rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def recall_of(index: IndexReader, vectors_NE: Any, queries: Any, allowed_N: Any, conditions: list[Condition]) -> float:
    """The mean share of the ten nearest allowed rows that are found. Item `p7` is row 7."""
    shares = []
    for query in queries:
        truth = np.argsort(np.where(allowed_N, -(vectors_NE @ query), np.inf))[:10]
        found = [int(hit.id[1:]) for hit in index.nearest(query, 10, conditions).hits]
        assert allowed_N[found].all()
        shares.append(len(np.intersect1d(found, truth)) / 10)
    return float(np.mean(shares))
