"""A generation of a retrieval index: its document and its files. All that a generation names is immutable.

indexes/<name>/request.json                  the work of the next job, written by the control plane
indexes/<name>/generations/<n>.json          the index after its n-th change; created atomically by exactly one process
indexes/<name>/segments/<id>/vectors.npy     (rows, E) float32, L2-normalised
indexes/<name>/segments/<id>/items.sqlite    row number -> id, metadata, and the metadata's values to filter by
indexes/<name>/segments/<id>/hnsw.bin        hnswlib's graph over the rows, of a segment that has one
indexes/<name>/dead/<id>.npy                 tombstones: rows of a segment that were removed or replaced
indexes/<name>/builds/<n>/parts/             the items that a build has encoded so far
indexes/<name>/updates/<id>.json             acknowledged updates, written by the control plane
indexes/<name>/tables/<id>                   marker of the database tables with this id (postgres/table.py)
"""

from typing import Literal

from tinyclip.artifacts.paths import SEGMENT_GRAPH, SEGMENT_ITEMS, SEGMENT_VECTORS
from tinyclip.schemas import IndexStore, RejectedItem, Response

VECTORS, ITEMS, GRAPH = SEGMENT_VECTORS, SEGMENT_ITEMS, SEGMENT_GRAPH

Kind = Literal["exact", "hnsw"]


class SegmentInfo(Response):
    """A segment: rows that were written together."""

    id: str
    """Unique: segments with the same id have the same bytes."""
    count: int
    kind: Kind
    ef: int = 0
    """Search width of the graph, chosen at build time so that recall@10 is `recall`."""
    recall: float | None = None
    """Recall@10 of the graph against exact search, on a sample of queries."""
    measured: int = 0
    """Number of items when `ef` was chosen, for a table in a database, which is changed in place."""
    dead: str | None = None
    """Id of its tombstones."""
    dead_count: int = 0

    @property
    def live(self) -> int:
        return self.count - self.dead_count

    @property
    def files(self) -> tuple[str, ...]:
        return (VECTORS, ITEMS, GRAPH) if self.kind == "hnsw" else (VECTORS, ITEMS)


class Generation(Response):
    """The complete state of an index."""

    name: str
    number: int
    nonce: str
    """Distinguishes generations with the same number: an index may be deleted and created again."""
    build: int
    model: str
    """`name@version` that embedded the items; only its queries are comparable with them."""
    embed_dim: int
    count: int
    """Number of items that can be found."""
    skipped_samples: int = 0
    """Of its build."""
    skipped_shards: int = 0
    """Of its build."""
    rejected: list[RejectedItem] = []
    """Rejected items of the updates that this generation added."""
    kind: Kind
    store: IndexStore = "files"
    """`pgvector`: the only segment is a pair of tables, changed in place. They hold the current state; this is a copy of it."""
    applied: int = 0
    """Number of the newest update that it contains; an update is applied completely or not at all."""
    segments: list[SegmentInfo] = []

    @property
    def recall(self) -> float | None:
        """The lowest recall of its segments."""
        return min((s.recall for s in self.segments if s.recall is not None), default=None)


def kind_of(segments: list[SegmentInfo]) -> Kind:
    """Return the kind of an index: `hnsw` if any of its segments has a graph."""
    return "hnsw" if any(segment.kind == "hnsw" for segment in segments) else "exact"
