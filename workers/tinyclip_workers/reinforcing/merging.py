"""Texts that several shards have: the first shard keeps the embeddings, the others refer to it.

Two steps, each of independent tasks. A task of the first looks at a range of hashes in all shards: its memory is bounded by the
number of ranges. A task of the second writes the final texts of a group of shards.

M texts of a shard, D texts of a range.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tinyclip.artifacts.paths import reinforcement_texts
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.reinforcement import file_format
from tinyclip_workers.data.reinforcement.embeddings import SCALE
from tinyclip_workers.data.reinforcement.tensor_files import NewTensorFile, PageCache, Shapes, TensorFile
from tinyclip_workers.data.reinforcement.texts import BUCKET_COUNT, Duplicates, TextTable, find_duplicates, resolve_duplicates
from tinyclip_workers.reinforcing.progress import merged_part, unmerged_texts, write_group
from tinyclip_workers.runtime.filesystems import open_own_store

TEXTS_PER_PART = 4_000_000
"""Texts of a range of hashes, about: a task takes some hundred megabytes for them."""
GROUP = 64
"""Shards of a group."""
SMALL_PAGE = 16 << 10
"""Bytes that are requested at once: a range of hashes in one shard has few."""
_LIMITS = "limits"
"""Limits of the rows of each group of shards, in a file of duplicates."""
_COLUMNS = ("shards", "places", "owners", "owner_places")


def part_count(texts: int) -> int:
    """Return the number of ranges of hashes."""
    return min(BUCKET_COUNT, max(1, -(-texts // TEXTS_PER_PART)))


def groups_of(shards: Sequence[int]) -> list[list[int]]:
    """Divide shards into groups of successive ones."""
    return [list(shards[start : start + GROUP]) for start in range(0, len(shards), GROUP)]


def merge_part_of(root: str, folder: str, shards: list[int], part: int, parts: int) -> None:
    """Merge a part as a Ray task."""
    merge_part(open_own_store(root), folder, shards, part, parts)


def finish_group_of(root: str, folder: str, group: int, shards: list[int], parts: int, widths: list[int], dtype: str) -> None:
    """Finish a group as a Ray task."""
    finish_group(open_own_store(root), folder, group, shards, parts, widths, dtype)


def merge_part(store: ArtifactsStore, folder: str, shards: list[int], part: int, parts: int) -> None:
    """Find the texts of a range of hashes that several of the shards have. Raises OSError."""
    buckets = range(BUCKET_COUNT * part // parts, BUCKET_COUNT * (part + 1) // parts)
    pages = PageCache(store, page_bytes=SMALL_PAGE, limit=1 << 20)
    hashes, owners, places = [], [], []
    for shard in shards:
        file = TensorFile.open(store, unmerged_texts(folder, shard), pages)
        limits = file.whole(file_format.BUCKETS)
        rows = range(int(limits[buckets.start]), int(limits[buckets.stop]))
        hashes.append(np.stack([file.part(file_format.HASHES, (half,), rows) for half in range(2)]))
        owners.append(np.full(len(rows), shard, np.int32))
        places.append(file.part(file_format.PLACES, rows=rows))
    found = find_duplicates(np.concatenate(hashes, axis=1), np.concatenate(owners), np.concatenate(places))
    columns = (found.shards_D, found.places_D, found.owners_D, found.owner_places_D)
    firsts = [group[0] for group in groups_of(shards)]
    limits = np.append(np.searchsorted(found.shards_D, firsts), len(found.shards_D))
    with _new_file({_LIMITS: ("I64", limits.shape), **dict.fromkeys(_COLUMNS, ("I32", found.shards_D.shape))}) as new:
        new[_LIMITS][:] = limits
        for name, column in zip(_COLUMNS, columns, strict=True):
            new[name][:] = column
        new.save(store, merged_part(folder, part))


def finish_group(
    store: ArtifactsStore, folder: str, group: int, shards: list[int], parts: int, widths: list[int], dtype: str
) -> None:
    """Write the final texts of a group of shards. Raises OSError."""
    duplicates = _duplicates_of(store, folder, group, parts)
    texts = size = 0
    for shard in shards:
        kept, written = _finish_shard(store, folder, shard, _of_shard(duplicates, shard), widths, dtype)
        texts, size = texts + kept, size + written
    write_group(store, folder, group, {"texts": texts, "bytes": size})


def _duplicates_of(store: ArtifactsStore, folder: str, group: int, parts: int) -> Duplicates:
    """Return the duplicates of a group of shards, sorted."""
    found, pages = [], PageCache(store, page_bytes=SMALL_PAGE, limit=1 << 20)
    for part in range(parts):
        file = TensorFile.open(store, merged_part(folder, part), pages)
        start, stop = file.part(_LIMITS, rows=range(group, group + 2)).tolist()
        found.append([file.part(name, rows=range(start, stop)) for name in _COLUMNS])
    columns = [np.concatenate(each) for each in zip(*found, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Duplicates(*(column[order] for column in columns))


def _of_shard(duplicates: Duplicates, shard: int) -> Duplicates:
    start, stop = np.searchsorted(duplicates.shards_D, [shard, shard + 1])
    columns = (duplicates.shards_D, duplicates.places_D, duplicates.owners_D, duplicates.owner_places_D)
    return Duplicates(*(column[start:stop] for column in columns))


def _finish_shard(
    store: ArtifactsStore, folder: str, shard: int, duplicates: Duplicates, widths: list[int], dtype: str
) -> tuple[int, int]:
    """Write the final texts of a shard; returns the number of those whose embeddings it keeps, and the file's size."""
    source = TensorFile.open(store, unmerged_texts(folder, shard), PageCache(store))
    own = TextTable(source.whole(file_format.HASHES), source.whole(file_format.OWNERS), source.whole(file_format.PLACES))
    table, kept = resolve_duplicates(own, duplicates)
    shapes = file_format.text_shapes(len(table.places_M), len(kept), widths, dtype)
    with _new_file(shapes) as new:
        new[file_format.HASHES][:], new[file_format.OWNERS][:] = table.hashes_2M, table.owners_M
        new[file_format.PLACES][:], new[file_format.KEPT][:] = table.places_M, kept
        for teacher in range(len(widths)):
            for name in (file_format.text(teacher), file_format.text(teacher) + SCALE):
                if name in shapes:
                    new[name][:] = source.whole(name)[kept]
        return len(kept), new.save(store, reinforcement_texts(folder, shard))


@contextmanager
def _new_file(shapes: Shapes) -> Iterator[NewTensorFile]:
    with tempfile.TemporaryDirectory(prefix="tinyclip-reinforcement-") as folder:
        yield NewTensorFile(Path(folder) / "new.safetensors", shapes)
