"""A retrieval index as files. An index is its newest generation; all that a generation names is never changed.

indexes/<name>/request.json                  what is to be done, written by the control plane before each job
indexes/<name>/generations/<n>.json          the index after its n-th change: made in one step, or taken by somebody else
indexes/<name>/segments/<id>/vectors.npy     (rows, E) float32, L2-normalised
indexes/<name>/segments/<id>/items.sqlite    row number -> id, metadata, and the metadata's values to filter by
indexes/<name>/segments/<id>/hnsw.bin        hnswlib's graph over the rows, of a segment that has one
indexes/<name>/dead/<id>.npy                 rows of a segment that a later one replaces, or that were removed
indexes/<name>/builds/<n>/parts/             what a build has encoded so far
indexes/<name>/updates/<id>.json             changes that were acknowledged, written by the control plane
indexes/<name>/tables/<id>                   that there are tables of this id in a database (postgres/table.py)
"""

import re
from typing import Literal

from tinyclip.artifacts.paths import index_dead_folder, index_generation, index_generations, index_segments
from tinyclip.schemas import IndexStore, RejectedItem, Response

from tinyclip_workers.runtime.store import Store

VECTORS, ITEMS, GRAPH = "vectors.npy", "items.sqlite", "hnsw.bin"

Kind = Literal["exact", "hnsw"]


class SegmentInfo(Response):
    """Rows that were written together."""

    id: str
    """Unique: two segments of one id are the same bytes."""
    count: int
    kind: Kind
    ef: int = 0
    """How wide the graph is searched; found at build time so that recall@10 is what `recall` says."""
    recall: float | None = None
    """Recall@10 of the graph against exact search, on a sample of queries."""
    measured: int = 0
    """Items that there were when `ef` was found, of a table in a database: it is changed in place."""
    dead: str | None = None
    dead_count: int = 0

    @property
    def live(self) -> int:
        return self.count - self.dead_count

    @property
    def files(self) -> tuple[str, ...]:
        return (VECTORS, ITEMS, GRAPH) if self.kind == "hnsw" else (VECTORS, ITEMS)


class Generation(Response):
    """The whole of an index at one moment."""

    name: str
    number: int
    nonce: str
    """Tells two generations of one number apart: an index may be deleted and made again."""
    build: int
    model: str
    """`name@version` whose embeddings these are; only its queries can be compared with them."""
    embed_dim: int
    count: int
    """Items that can be found."""
    skipped_samples: int = 0
    skipped_shards: int = 0
    """Of its build."""
    rejected: list[RejectedItem] = []
    """Items of the updates that this generation brought."""
    kind: Kind
    store: IndexStore = "files"
    """`pgvector`: the one segment is a pair of tables, changed in place. Their state is this document, and this its copy."""
    applied: int = 0
    """Number of the newest update that is in it; an update is in it whole or not at all."""
    segments: list[SegmentInfo] = []

    @property
    def recall(self) -> float | None:
        """Of the least exact segment."""
        return min((s.recall for s in self.segments if s.recall is not None), default=None)


def kind_of(segments: list[SegmentInfo]) -> Kind:
    """How most of an index is searched."""
    return "hnsw" if any(segment.kind == "hnsw" for segment in segments) else "exact"


def newest(store: Store, name: str) -> Generation | None:
    """The generation that answers; null before the first."""
    for _ in range(3):
        numbers = _numbers(store, name)
        if not numbers:
            return None
        try:
            return Generation.model_validate_json(store.read_bytes(index_generation(name, numbers[-1])))
        except FileNotFoundError:  # a newer one came and this one went between the look and the reading
            continue
    raise OSError(f"{store.uri(index_generations(name))} changes faster than it can be read; try again")


def commit(store: Store, generation: Generation) -> bool:
    """Make a generation the newest; False (and nothing changed) if its number is taken. What only older ones name goes."""
    path = index_generation(generation.name, generation.number)
    if not store.create_bytes(path, generation.model_dump_json(indent=1).encode()):
        return False
    remove_others(store, generation)
    return True


def remove_others(store: Store, generation: Generation) -> None:
    """What this generation does not name, of an index that nobody else is changing."""
    name = generation.name
    used = {segment.id for segment in generation.segments}
    dead = {f"{segment.dead}.npy" for segment in generation.segments if segment.dead}
    for number in _numbers(store, name):
        if number < generation.number:
            store.remove(index_generation(name, number))
    for folder, kept in ((index_segments(name), used), (index_dead_folder(name), dead)):
        for leftover in set(store.list(folder)) - kept:
            store.remove(f"{folder}/{leftover}")


def _numbers(store: Store, name: str) -> list[int]:
    return sorted(int(found.split(".")[0]) for found in store.list(index_generations(name)) if re.fullmatch(r"\d+\.json", found))
