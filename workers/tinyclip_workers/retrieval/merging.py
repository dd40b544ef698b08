"""The next generation of an index: some items replaced, added or removed, the rest as it was.

New items become a segment of their own; what it replaces is noted as dead in the segments before. So that a search does not
meet ever more segments, each one is kept at least four times as large as all that came after it: smaller ones are written
again together with the new items (the logarithmic method of Bentley and Saxe 1980). An item is so written again a few times in
its life, and not with each update.

Shapes: N rows, E embedding size.
"""

import io
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tinyclip.artifacts.paths import index_dead_rows
from tinyclip.schemas import JSON, IndexKind

from tinyclip_workers.retrieval.files import Generation, SegmentInfo, kind_of
from tinyclip_workers.retrieval.new_segment import GRAPH_FROM, needs_graph, new_segment
from tinyclip_workers.retrieval.opening import open_index
from tinyclip_workers.retrieval.segment import Dead, Segment
from tinyclip_workers.retrieval.segment_writer import SegmentWriter
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

GROWTH = 4
"""How much larger a segment is than all after it."""
MOST_DEAD = 0.3
"""Share of a segment's rows; with more it is written again without them."""
CHUNK = 4096


@dataclass(frozen=True)
class NewItem:
    vector_E: Matrix
    metadata: JSON


Changes = Mapping[str, NewItem | None]
"""By id what an item is from now on; null: it is no more."""


def next_generation(
    store: Store,
    current: Generation,
    changes: Changes,
    asked: IndexKind,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Generation:
    """Writes the segments of a generation that has the changes in it. Committing it is up to the caller."""
    reader = open_index(store, current)
    new = {id: item for id, item in changes.items() if item is not None}
    dead = [_now_dead(segment, before, list(changes)) for segment, before in zip(reader.segments, reader.dead, strict=True)]
    lives = [segment.count - len(rows) for segment, rows in zip(reader.segments, dead, strict=True)]
    total = sum(lives) + len(new)
    first = _first_to_merge(current.segments, lives, dead, len(new), asked, total)
    segments = [_with_dead(store, current.name, *kept) for kept in zip(current.segments[:first], dead[:first], strict=True)]
    if sum(lives[first:]) + len(new):
        with new_segment(store, current.name, current.embed_dim) as merged:
            _copy_live(merged.writer, reader.segments[first:], dead[first:])
            _add_new(merged.writer, new)
            graph = needs_graph(asked, total, merged.writer.count)
            segments.append(merged.finish(graph=graph, on_progress=on_progress))
    return current.model_copy(
        update={
            "number": current.number + 1,
            "nonce": uuid.uuid4().hex,
            "count": total,
            "kind": kind_of(segments),
            "segments": segments,
        }
    )


def _first_to_merge(
    infos: list[SegmentInfo], lives: list[int], dead: list[Dead], new: int, asked: IndexKind, total: int
) -> int:
    """The segments from this one on are written again, with the new items."""
    first, after = len(infos), new
    while first and lives[first - 1] < GROWTH * after:
        first -= 1
        after += lives[first]
    for place, info in enumerate(infos[:first]):
        outgrown = asked == "auto" and total >= GRAPH_FROM and info.kind == "exact" and needs_graph(asked, total, lives[place])
        if outgrown or len(dead[place]) > MOST_DEAD * info.count:
            return place
    return first


def _now_dead(segment: Segment, before: Dead, ids: list[str]) -> Dead:
    return np.union1d(before, segment.rows_of(ids))


def _with_dead(store: Store, name: str, info: SegmentInfo, dead: Dead) -> SegmentInfo:
    if len(dead) == info.dead_count:
        return info
    id, file = uuid.uuid4().hex, io.BytesIO()
    np.save(file, dead, allow_pickle=False)
    store.write_bytes(index_dead_rows(name, id), file.getvalue())
    return info.model_copy(update={"dead": id, "dead_count": len(dead)})


def _copy_live(writer: SegmentWriter, segments: list[Segment], dead: list[Dead]) -> None:
    for segment, gone in zip(segments, dead, strict=True):
        live_N = np.ones(segment.count, np.bool_)
        live_N[gone] = False
        for start in range(0, segment.count, CHUNK):
            rows = start + np.flatnonzero(live_N[start : start + CHUNK])
            items = segment.documents(rows.tolist())
            writer.add(segment.vectors_NE[rows], items)


def _add_new(writer: SegmentWriter, new: Mapping[str, NewItem]) -> None:
    if new:
        writer.add(np.stack([item.vector_E for item in new.values()]), [(id, item.metadata) for id, item in new.items()])

