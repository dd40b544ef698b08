"""Items with unusual metadata, filters over them with their meaning in Python, and an index of them in files."""

from pathlib import Path
from typing import Any

import numpy as np
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.retrieval.generations import Generation, SegmentInfo, kind_of
from tinyclip_workers.retrieval.reader import FilesReader, open_index
from tinyclip_workers.retrieval.segment_writer import new_segment
from tinyclip_workers.types import Matrix

from tests.workers.index_jobs import unit_vectors

N, E = 6000, 32


def metadata(i: int) -> dict[str, Any]:
    return {
        "year": 2000 + i % 20, "camera": {"make": ["Leica", "Nikon", "Canon"][i % 3], "mm": i % 7 + 0.5}, "even": i % 2 == 0,
        "tags": [f"t{i % 5}", f"u{i % 11}"], "taken": f"2020-{i % 12 + 1:02}-01", "rare": i if i % 100 == 0 else None,
        "odd key/~": i % 4, "long": "x" * 300, "huge": 10**400, "not": float("nan"), "bad": "\ud800",
    }  # fmt: skip


ITEMS = [(f"p{i}", metadata(i)) for i in range(N)]
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"year": 2003}, lambda m: m["year"] == 2003),
    ({"year": 2003.0, "even": False}, lambda m: m["year"] == 2003 and not m["even"]),
    ({"camera.make": ["Leica", "Canon"]}, lambda m: m["camera"]["make"] != "Nikon"),
    ({"camera.mm": {"gt": 1.5, "lte": 4.5}}, lambda m: 1.5 < m["camera"]["mm"] <= 4.5),
    ({"year": {"gte": 2010, "lt": 2012}, "tags": "t1"}, lambda m: m["year"] in (2010, 2011) and "t1" in m["tags"]),
    ({"tags": {"ne": "t1"}}, lambda m: "t1" not in m["tags"]),
    ({"taken": {"gte": "2020-03", "lt": "2020-05"}}, lambda m: m["taken"][:7] in ("2020-03", "2020-04")),
    ({"rare": {"in": [100, 200, 7]}}, lambda m: m["rare"] in (100, 200)),
    ({"odd key/~": {"gte": 3}}, lambda m: m["odd key/~"] == 3),
    ({"even": True}, lambda m: m["even"]),
    ({"even": 1}, lambda m: False),
    ({"year": {"gte": ""}}, lambda m: False),
    ({"nowhere": 1}, lambda m: False),
    ({"nowhere": {"ne": 1}}, lambda m: True),
    ({"rare": {"gt": -(10**300)}}, lambda m: m["rare"] is not None),
]


def item_vectors() -> Matrix:
    """Return (N, E) vectors near a subspace of 12 dimensions, as embeddings are near one of few dimensions."""
    spread = unit_vectors(N, 12) @ unit_vectors(12, E, seed=1) + 0.1 * unit_vectors(N, E, seed=2)
    return spread / np.linalg.norm(spread, axis=1, keepdims=True)


def queries_near_items(count: int) -> Matrix:
    """Return queries in the subspace of `item_vectors`."""
    return unit_vectors(count, 12, seed=6) @ unit_vectors(12, E, seed=1)


def generation_of(*segments: SegmentInfo, **changes: Any) -> Generation:
    return Generation(
        name="gallery", number=1, nonce="n", build=1, model="m@1", embed_dim=E, count=N, kind=kind_of([*segments]),
        segments=[*segments], **changes,
    )  # fmt: skip


def index_in_files(root: Path, vectors_NE: Matrix, *, graph: bool) -> FilesReader:
    store = ArtifactsStore(str(root))
    with new_segment(store, "gallery", E) as segment:
        segment.add(vectors_NE, ITEMS)
        info = segment.finish(graph=graph)
    return open_index(store, generation_of(info))
