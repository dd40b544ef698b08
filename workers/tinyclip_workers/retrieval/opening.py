"""From the artifacts store to open segments: in place on a disk, else through a copy that goes with them."""

import io
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tinyclip.artifacts.paths import index_dead_rows, index_segment

from tinyclip_workers.retrieval.files import Generation, SegmentInfo
from tinyclip_workers.retrieval.reader import IndexReader
from tinyclip_workers.retrieval.segment import NOBODY, Dead, Segment
from tinyclip_workers.runtime.store import Store


def open_index(store: Store, generation: Generation, known: Mapping[str, Segment] | None = None) -> IndexReader:
    """A reader of a generation; `known` are segments by id that are open already. Raises FileNotFoundError if it is gone."""
    known = known or {}
    segments = [known.get(info.id) or open_segment(store, generation, info) for info in generation.segments]
    return IndexReader(generation, segments, [dead_rows(store, generation.name, info) for info in generation.segments])


def open_segment(store: Store, generation: Generation, info: SegmentInfo) -> Segment:
    """Raises FileNotFoundError."""
    folder = index_segment(generation.name, info.id)
    local = store.local_path(folder)
    if local is not None:
        return Segment(local, info, generation.embed_dim)
    copy = Path(tempfile.mkdtemp(prefix="tinyclip-index-"))
    try:
        for file in info.files:
            store.fetch(f"{folder}/{file}", copy / file)
        segment = Segment(copy, info, generation.embed_dim)
    except OSError:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    weakref.finalize(segment, shutil.rmtree, copy, ignore_errors=True)
    return segment


def dead_rows(store: Store, name: str, info: SegmentInfo) -> Dead:
    """Rows that are in the segment's files and no more in the index. Raises FileNotFoundError."""
    if info.dead is None:
        return NOBODY
    rows: Dead = np.load(io.BytesIO(store.read_bytes(index_dead_rows(name, info.dead))), allow_pickle=False)
    return rows
