"""Open a generation of an index and search it.

Segments are used in place in a local store; those of a remote store are copied to a temporary folder that lives as long as they.
"""

import io
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter
from tinyclip.artifacts.paths import index_segment, index_tombstones
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import Condition
from tinyclip.schemas import Hit

from tinyclip_workers.retrieval.codes import leading
from tinyclip_workers.retrieval.generations import Generation, Kind, SegmentInfo
from tinyclip_workers.retrieval.segment import NO_ROWS, NearestRows, Segment, Tombstones
from tinyclip_workers.retrieval.segment_writer import encodable
from tinyclip_workers.types import Matrix

_HITS = TypeAdapter(list[Hit])


@dataclass(frozen=True)
class SearchResult:
    """The hits of one search."""

    hits: list[Hit]
    kind: Kind
    """`hnsw` if any of them was found through a graph, `exact` if all candidates were compared."""


class GenerationRemoved(Exception):
    """The data of the generation no longer exists: it was superseded, or the index was deleted."""


class DatabaseUnavailable(OSError):
    """The database of an index does not respond, or failed to execute a statement."""


class IndexReader(Protocol):
    """One generation of an index, open for searching."""

    generation: Generation

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> SearchResult:
        """Return the items with the largest cosine that meet all conditions, best first.

        Items with equal scores are in the order of the index. Raises GenerationRemoved, DatabaseUnavailable.
        """
        ...

    def vector(self, id: str) -> Matrix | None:
        """Return the stored vector (E,) of an item, of codes the one that they stand for; None if there is no such item.

        Raises GenerationRemoved, DatabaseUnavailable.
        """
        ...


def open_index(
    store: ArtifactsStore, generation: Generation, open_segments: Mapping[str, Segment] | None = None
) -> "FilesReader":
    """Open a generation, reusing the segments in `open_segments` (by id). Raises FileNotFoundError if it was removed."""
    known = open_segments or {}
    segments = [known.get(info.id) or _open_segment(store, generation, info) for info in generation.segments]
    return FilesReader(generation, segments, [read_tombstones(store, generation.name, info) for info in generation.segments])


class FilesReader:
    """A generation of an index in files. Generations share their segments."""

    def __init__(self, generation: Generation, segments: Sequence[Segment], tombstones: Sequence[Tombstones]) -> None:
        """`tombstones`: those of each segment in this generation."""
        self.generation = generation
        self.segments, self.tombstones = list(segments), list(tombstones)

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> SearchResult:
        """See `IndexReader.nearest`."""
        query_E = leading(query_E, self.generation.size)
        nearest = [
            segment.nearest(query_E, top_k, tombstones, conditions)
            for segment, tombstones in zip(self.segments, self.tombstones, strict=True)
        ]
        if len(nearest) == 1:
            [found] = nearest
            return SearchResult(_hits(self.segments[0], found.rows.tolist(), found.scores.tolist()), found.kind)
        kind: Kind = "hnsw" if any(found.kind == "hnsw" for found in nearest) else "exact"
        return SearchResult(self._merged_hits(nearest, top_k), kind)

    def vector(self, id: str) -> Matrix | None:
        """See `IndexReader.vector`."""
        for segment, tombstones in zip(self.segments, self.tombstones, strict=True):
            rows = np.setdiff1d(segment.rows_of([encodable(id)]), tombstones)
            if len(rows):
                vector_E: Matrix = segment.vectors.rows(rows)[0]
                return vector_E / max(float(np.linalg.norm(vector_E)), 1e-12)
        return None

    def _merged_hits(self, nearest: Sequence[NearestRows], top_k: int) -> list[Hit]:
        if not nearest:
            return []
        order = np.argsort(-np.concatenate([found.scores for found in nearest]), kind="stable")[:top_k]
        owners = np.repeat(np.arange(len(nearest)), [len(found.rows) for found in nearest])[order]
        rows, scores = (np.concatenate([getattr(found, part) for found in nearest])[order] for part in ("rows", "scores"))
        hits: list[Hit | None] = [None] * len(order)
        for owner in set(owners.tolist()):
            places = np.flatnonzero(owners == owner)
            segment_hits = _hits(self.segments[owner], rows[places].tolist(), scores[places].tolist())
            for place, hit in zip(places, segment_hits, strict=True):
                hits[place] = hit
        return [hit for hit in hits if hit is not None]


def nearest_to_item(
    reader: IndexReader, id: str, top_k: int, conditions: Sequence[Condition] = ()
) -> SearchResult | None:
    """Return the items nearest to an item of the index, without itself; None if there is no such item. Raises as `nearest`."""
    vector_E = reader.vector(id)
    if vector_E is None:
        return None
    found = reader.nearest(vector_E, top_k + 1, conditions)
    others = [hit for hit in found.hits if hit.id != encodable(id)]
    return SearchResult(others[:top_k], found.kind)


def parse_hits(found: Iterable[tuple[str, float, str]]) -> list[Hit]:
    """Return hits from (id, score, metadata as JSON).

    All are parsed as one JSON text: creating them one by one takes twice as long, which is a tenth of a search.
    """
    texts = [f'{{"id":{quoted(id)},"score":{score!r},"metadata":{metadata}}}' for id, score, metadata in found]
    return _HITS.validate_json(f"[{','.join(texts)}]") if texts else []


def _hits(segment: Segment, rows: list[int], scores: list[float]) -> list[Hit]:
    items = segment.items(rows)
    return parse_hits((items[row][0], score, items[row][1]) for row, score in zip(rows, scores, strict=True))


def _open_segment(store: ArtifactsStore, generation: Generation, info: SegmentInfo) -> Segment:
    """Raises FileNotFoundError."""
    folder = index_segment(generation.name, info.id)
    local = store.local_path(folder)
    if local is not None:
        return Segment(local, info, generation.size)
    copy = Path(tempfile.mkdtemp(prefix="tinyclip-index-"))
    try:
        for file in info.files:
            store.get_file(f"{folder}/{file}", copy / file)
        segment = Segment(copy, info, generation.size)
    except OSError:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    weakref.finalize(segment, shutil.rmtree, copy, ignore_errors=True)
    return segment


def read_tombstones(store: ArtifactsStore, name: str, info: SegmentInfo) -> Tombstones:
    """Return the tombstones of a segment. Raises FileNotFoundError."""
    if info.dead is None:
        return NO_ROWS
    rows: Tombstones = np.load(io.BytesIO(store.read_bytes(index_tombstones(name, info.dead))), allow_pickle=False)
    return rows
