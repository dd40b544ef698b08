"""Write the segments of the next generation of an index: some items replaced, added or removed, the rest unchanged.

New items form a new segment; the rows that they replace become tombstones of the older segments. To bound the number of
segments, each one is kept at least four times as large as all later ones together: smaller ones are merged into the new segment
(the logarithmic method of Bentley and Saxe 1980). An item is thus rewritten a few times in its life, not with every update.

Shapes: N rows, E embedding size.
"""

import io
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tinyclip.artifacts.paths import index_tombstones
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON, IndexKind

from tinyclip_workers.retrieval.generations import Generation, SegmentInfo, kind_of
from tinyclip_workers.retrieval.graph import GRAPH_FROM, needs_graph
from tinyclip_workers.retrieval.reader import open_index
from tinyclip_workers.retrieval.segment import Segment, Tombstones
from tinyclip_workers.retrieval.segment_writer import SegmentWriter, new_segment
from tinyclip_workers.types import Matrix

SEGMENT_GROWTH = 4
"""How much larger a segment is than all later ones together."""
MAX_TOMBSTONE_SHARE = 0.3
"""Share of a segment's rows above which the segment is rewritten without its tombstones."""
CHUNK = 4096


@dataclass(frozen=True)
class NewItem:
    """An embedded item."""

    vector_E: Matrix
    metadata: JSON
    jpeg: bytes | None = None
    """A small picture, of an item that was added with an image."""


Changes = Mapping[str, NewItem | None]
"""The new item of each id; None: the item is removed."""


def next_generation(
    store: ArtifactsStore,
    current: Generation,
    changes: Changes,
    kind: IndexKind,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Generation:
    """Write the segments of a generation that contains the changes, and return it uncommitted."""
    reader = open_index(store, current)
    new = {id: item for id, item in changes.items() if item is not None}
    tombstones = [
        np.union1d(before, segment.rows_of(list(changes)))
        for segment, before in zip(reader.segments, reader.tombstones, strict=True)
    ]
    live_counts = [segment.count - len(rows) for segment, rows in zip(reader.segments, tombstones, strict=True)]
    total = sum(live_counts) + len(new)
    first = _first_to_merge(current.segments, live_counts, len(new), kind if current.codes == "float" else "exact", total)
    kept = zip(current.segments[:first], tombstones[:first], strict=True)
    segments = [_write_tombstones(store, current.name, info, rows) for info, rows in kept]
    if sum(live_counts[first:]) + len(new):
        with new_segment(store, current.name, current.size, current.codes) as writer:
            _copy_live_rows(writer, reader.segments[first:], tombstones[first:])
            if new:
                vectors_NE = np.stack([item.vector_E for item in new.values()])
                writer.add(vectors_NE, [(id, item.metadata) for id, item in new.items()], [item.jpeg for item in new.values()])
            graph = current.codes == "float" and needs_graph(kind, total, writer.count)
            segments.append(writer.finish(graph=graph, on_progress=on_progress))
    return current.model_copy(
        update={
            "number": current.number + 1,
            "nonce": uuid.uuid4().hex,
            "count": total,
            "kind": kind_of(segments),
            "segments": segments,
        }
    )


def _first_to_merge(infos: list[SegmentInfo], live_counts: list[int], new: int, kind: IndexKind, total: int) -> int:
    """Return the first segment that is merged, with all later ones and the new items."""
    first, later = len(infos), new
    while first and live_counts[first - 1] < SEGMENT_GROWTH * later:
        first -= 1
        later += live_counts[first]
    for place, (info, live) in enumerate(zip(infos[:first], live_counts, strict=False)):
        needs_its_graph = kind == "auto" and total >= GRAPH_FROM and info.kind == "exact" and needs_graph(kind, total, live)
        if needs_its_graph or info.count - live > MAX_TOMBSTONE_SHARE * info.count:
            return place
    return first


def _write_tombstones(store: ArtifactsStore, name: str, info: SegmentInfo, tombstones: Tombstones) -> SegmentInfo:
    if len(tombstones) == info.dead_count:
        return info
    id, file = uuid.uuid4().hex, io.BytesIO()
    np.save(file, tombstones, allow_pickle=False)
    store.write_bytes(index_tombstones(name, id), file.getvalue())
    return info.model_copy(update={"dead": id, "dead_count": len(tombstones)})


def _copy_live_rows(writer: SegmentWriter, segments: list[Segment], tombstones: list[Tombstones]) -> None:
    for segment, removed in zip(segments, tombstones, strict=True):
        live_N = np.ones(segment.count, np.bool_)
        live_N[removed] = False
        for start in range(0, segment.count, CHUNK):
            rows = start + np.flatnonzero(live_N[start : start + CHUNK])
            items = segment.documents(rows.tolist())
            writer.add(segment.vectors.rows(rows), items, segment.pictures(rows.tolist()))
