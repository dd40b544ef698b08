"""A generation of a retrieval index: its document and its files. All that a generation names is immutable.

indexes/<name>/request.json                  the work of the next job, written by the control plane
indexes/<name>/generations/<n>.json          the index after its n-th change; created atomically by exactly one process
indexes/<name>/segments/<id>/vectors.npy     (rows, E) float32, L2-normalised; or int8, with scales.npy (codes.py)
indexes/<name>/segments/<id>/bits.npy        of binary codes, with factors.npy and center.npy
indexes/<name>/segments/<id>/items.sqlite    row number -> id, metadata, the metadata's values to filter by, and where the
                                             image lies (pictures.py)
indexes/<name>/segments/<id>/hnsw.bin        hnswlib's graph over the rows, of a segment that has one
indexes/<name>/dead/<id>.npy                 tombstones: rows of a segment that were removed or replaced
indexes/<name>/builds/<n>/parts/             the items that a build has encoded so far
indexes/<name>/updates/<id>.json             acknowledged updates, written by the control plane
indexes/<name>/tables/<id>                   marker of the database tables with this id (postgres/table.py)
"""

from typing import Literal

from tinyclip.artifacts.paths import SEGMENT_CODES, SEGMENT_GRAPH, SEGMENT_ITEMS, SEGMENT_VECTORS
from tinyclip.schemas import JSON, IndexStore, RejectedItem, Response
from tinyclip.schemas.indexes import IndexCodes

VECTORS, ITEMS, GRAPH = SEGMENT_VECTORS, SEGMENT_ITEMS, SEGMENT_GRAPH

Kind = Literal["exact", "hnsw"]


class SegmentInfo(Response):
    """A segment: rows that were written together."""

    id: str
    """Unique: segments with the same id have the same bytes."""
    count: int
    kind: Kind
    ef: int = 0
    """Search width of the graph, or candidates of binary codes for ten hits; chosen so that recall@10 is `recall`."""
    recall: float | None = None
    """Recall@10 of the graph or the codes against exact search in floats, on a sample of queries."""
    codes: IndexCodes = "float"
    bytes: int = 0
    """Size of its files; 0: written by an older version, or in a database."""
    search_ms: float | None = None
    """CPU milliseconds of a search for ten items, the median of the sample."""
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
        graph = (GRAPH,) if self.kind == "hnsw" else ()
        return (*SEGMENT_CODES[self.codes], ITEMS, *graph)


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
    """Of the model."""
    dimensions: int | None = None
    """Leading numbers of the embeddings that it keeps, normalised again; None: all."""
    codes: IndexCodes = "float"
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
    """`pgvector`: the only segment is a set of tables, changed in place. They hold the current state; this is a copy of it."""
    applied: int = 0
    """Number of the newest update that it contains; an update is applied completely or not at all."""
    segments: list[SegmentInfo] = []

    @property
    def size(self) -> int:
        """Numbers of the vectors that it keeps."""
        return self.dimensions or self.embed_dim

    @property
    def recall(self) -> float | None:
        """The lowest recall of its segments."""
        return min((s.recall for s in self.segments if s.recall is not None), default=None)

    def measurements(self) -> JSON:
        """Return what events report of its recall, size and cost."""
        sizes, times = [s.bytes for s in self.segments], [s.search_ms for s in self.segments if s.search_ms is not None]
        measured = bool(times) and len(times) == len(sizes)
        return {
            "recall": self.recall,
            "bytes": sum(sizes) if sizes and all(sizes) else None,
            "search_ms": round(sum(times), 4) if measured else None,
        }


def kind_of(segments: list[SegmentInfo]) -> Kind:
    """Return the kind of an index: `hnsw` if any of its segments has a graph."""
    return "hnsw" if any(segment.kind == "hnsw" for segment in segments) else "exact"
