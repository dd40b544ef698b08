"""Requests to index jobs as the control plane writes them, jobs run in this process, and what they leave in the store."""

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
IN_POSTGRES: JSON = {"store": "pgvector"}


def request_build(root: Path | str, model_uri: Path, shards: str | None, build: int = 1, **changes: Any) -> None:
    """Request a build; without shards, of an empty index."""
    request = {
        "name": "gallery", "job": f"b{build}", "build": build, "model": "student@1", "model_uri": str(model_uri),
        "embed_dim": EMBED_DIM, "source": {"shards": shards} if shards else None, **changes,
    }
    ArtifactsStore(str(root)).write_bytes("indexes/gallery/request.json", json.dumps(request).encode())


def request_updates(root: Path | str, model_uri: Path, updates: dict[int, JSON], build: int = 1, **changes: Any) -> None:
    """Request updates by number."""
    store = ArtifactsStore(str(root))
    for number, update in updates.items():
        store.write_bytes(f"indexes/gallery/updates/{number}.json", json.dumps(update).encode())
    files = [{"number": number, "file": f"{number}.json"} for number in updates]
    request_build(root, model_uri, None, build, job=f"u{max(updates)}", updates=files, **changes)


def job_arguments(root: Path | str, job: str) -> list[str]:
    return ["index", "--artifacts", str(root), "--index", "gallery", "--job", job]


def run_job(root: Path | str, job: str | int = 1) -> int:
    """Run a job by its name or the number of its build; return its exit status."""
    return jobs.main(job_arguments(root, f"b{job}" if isinstance(job, int) else job))


def update(
    root: Path, model_uri: Path, number: int, items: list[JSON], removed: list[str] | None = None, **changes: Any
) -> Generation:
    """Apply one update; return the new generation."""
    request_updates(root, model_uri, {number: {"items": items, "removed": removed or []}}, **changes)
    assert run_job(root, f"u{number}") == 0, job_events(root, f"u{number}")
    return newest_generation(root)


def job_events(root: Path, job: str | int = 1) -> list[JSON]:
    name = f"b{job}" if isinstance(job, int) else job
    segments = sorted((root / f"indexes/gallery/jobs/{name}/events").glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def open_reader(root: Path | str, model: str = "student@1") -> IndexReader:
    """Open the newest generation as a deployment does."""
    return Indexes(str(root)).get("gallery", model)


def newest_generation(root: Path | str) -> Generation:
    generation = newest(ArtifactsStore(str(root)), "gallery")
    assert generation is not None
    return generation


def unit_vectors(*shape: int, seed: int = 0) -> Matrix:
    """Return random rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vector_items(rows: Any, first: int = 0) -> list[JSON]:
    """Return items `v0`, `v1`, … with these vectors."""
    return [{"id": f"v{first + i}", "vector": row.tolist(), "metadata": {"n": first + i}} for i, row in enumerate(rows)]


def recall_of(index: IndexReader, vectors_NE: Any, queries: Any, allowed_N: Any, conditions: list[Condition]) -> float:
    """Return the mean share of the ten nearest allowed rows that are found. Item `p7` is row 7."""
    shares = []
    for query in queries:
        truth = np.argsort(np.where(allowed_N, -(vectors_NE @ query), np.inf))[:10]
        found = [int(hit.id[1:]) for hit in index.nearest(query, 10, conditions).hits]
        assert allowed_N[found].all()
        shares.append(len(np.intersect1d(found, truth)) / 10)
    return float(np.mean(shares))


class History:
    """Random updates, and a dictionary with the vectors that the index should then contain."""

    def __init__(self, ids: int, seed: int = 5) -> None:
        self._ids, self._random = ids, np.random.default_rng(seed)
        self.vectors: dict[str, Matrix] = {}

    def next_update(self, number: int) -> tuple[list[JSON], list[str]]:
        """Return added or replaced items and removed ids."""
        ids = self._random.choice(self._ids, self._random.integers(1, 60), replace=False)
        rows = unit_vectors(len(ids), EMBED_DIM, seed=number)
        others = self._random.choice(self._ids, self._random.integers(0, 30), replace=False)
        removed = [f"v{id}" for id in others if id not in ids]
        items = [{"id": f"v{id}", "vector": row.tolist(), "metadata": {"n": number}} for id, row in zip(ids, rows, strict=True)]
        self.vectors = {id: row for id, row in self.vectors.items() if id not in removed}
        self.vectors |= {f"v{id}": row for id, row in zip(ids, rows, strict=True)}
        return items, removed

    def check(self, index: IndexReader, kind: str) -> None:
        """Compare searches with brute force over the dictionary."""
        names, matrix = list(self.vectors), np.stack(list(self.vectors.values()))
        shares = []
        for query in unit_vectors(20, EMBED_DIM, seed=99):
            found = index.nearest(query, 10)
            truth = [names[i] for i in np.argsort(-(matrix @ query), kind="stable")[:10]]
            scores = [self.vectors[hit.id] @ query for hit in found.hits]
            np.testing.assert_allclose([hit.score for hit in found.hits], scores, atol=1e-5)
            assert found.kind == kind
            shares.append(len({hit.id for hit in found.hits} & set(truth)) / 10)
        assert np.mean(shares) >= (0.95 if kind == "hnsw" else 1.0)
