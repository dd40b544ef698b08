"""Read the items of an index from WebDataset shards: decoded images and the metadata that hits return."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from tinyclip.schemas import JSON, IndexSource

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.scanning import content_crc, has_ranges
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, sample_errors, small_file, storable_json
from tinyclip_workers.data.shards import BROKEN_SHARD, ShardProgress, read_placed, read_shards
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.pictures import Place, Shard
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.user_files import open_file
from tinyclip_workers.types import Pixels

T = TypeVar("T")

BATCH = 64
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
"""Beginnings of compressed files."""


@dataclass(frozen=True)
class Item:
    """A decoded sample."""

    id: str
    metadata: JSON
    image: Pixels
    place: Place | None = None


@dataclass(frozen=True)
class ShardPosition:
    """A position in a list of shards: the index of the current shard, and how many of its samples have been read."""

    shard: int = 0
    sample: int = 0


def read_items(
    urls: list[str], source: IndexSource, engine: Engine, skipped: Skipped, progress: "BuildProgress"
) -> Iterator[Item]:
    """Yield decoded samples in order, from the position of `progress`; count unreadable ones in `skipped`.

    A few threads decode each batch.
    """
    shards = _Shards(source)

    def read(sample: Sample) -> Item | str:
        try:
            with sample_errors():
                image = decode_square(image_bytes(sample, source.image_key), engine.image_size)
                return Item(sample["__key__"], _metadata(sample, source), image, shards.place(sample))
        except UnusableSample as error:
            return str(error)

    with ThreadPoolExecutor(max(2, torch.get_num_threads())) as pool:
        for samples in batches(read_shards(urls, skipped, reader=_reader_from(urls, progress.position)), BATCH):
            shards.look_at(samples)
            for sample, item in zip(samples, pool.map(read, samples), strict=True):
                progress.advance(sample)
                if isinstance(item, str):
                    skipped.add_sample(sample["__key__"], item)
                else:
                    yield item


def _metadata(sample: Sample, source: IndexSource) -> JSON:
    """Return the metadata of an item: its place, its caption, and the sample's own documents, whose fields take precedence."""
    metadata: JSON = {"key": sample["__key__"], "shard": sample["__url__"]}
    if "txt" in sample:
        metadata["caption"] = small_file(sample, "txt").decode("utf-8", "replace").strip()
    for key in source.metadata_keys:
        if key == "json":
            metadata |= storable_json(sample)
        elif key in sample:
            metadata[key] = small_file(sample, key).decode("utf-8", "replace")
    return metadata


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Split an iterator into lists of `size`; the last one may be shorter."""
    while batch := list(islice(items, size)):
        yield batch


def _reader_from(urls: list[str], position: ShardPosition) -> Callable[[str], Iterator[Sample]]:
    """Return a reader of shards that starts at a position."""
    passed = set(urls[: position.shard])

    def read(url: str) -> Iterator[Sample]:
        if url in passed:
            return iter(())
        is_first = position.shard < len(urls) and url == urls[position.shard]
        return islice(_with_places(url), position.sample if is_first else 0, None)

    return read


def _with_places(url: str) -> Iterator[Sample]:
    """Yield the samples of a shard as `read_shard`, with `__place__`: number, offset and length."""
    with open_file(url) as file:
        for number, (sample, start, end) in enumerate(read_placed(url, file)):
            sample["__place__"] = number, start, end - start
            yield sample


class _Shards:
    """The shards that places name."""

    def __init__(self, source: IndexSource) -> None:
        self._image_keys = tuple(source.image_key)
        self._known: dict[str, Shard | None] = {}

    def look_at(self, samples: list[Sample]) -> None:
        """Find out how the shards of some samples can be read; of one that fails meanwhile, items have no place."""
        for url in {sample["__url__"] for sample in samples} - self._known.keys():
            try:
                self._known[url] = Shard(url, self._image_keys, _is_sequential(url))
            except BROKEN_SHARD:
                self._known[url] = None

    def place(self, sample: Sample) -> Place | None:
        shard = self._known[sample["__url__"]]
        number, offset, length = sample["__place__"]
        return None if shard is None else Place(shard, number, offset, length, content_crc(sample))


def _is_sequential(url: str) -> bool:
    """Return whether a shard can only be read from its beginning. Raises OSError."""
    with open_file(url, block_bytes=1 << 16) as file:
        head = file.read(6)
    return head.startswith(_COMPRESSED) or not has_ranges(url)


class BuildProgress:
    """The progress of a build: its position in the shards, and the events that report it."""

    def __init__(
        self, events: EventWriter, urls: list[str], position: ShardPosition = ShardPosition(), seen_bytes: int = 0
    ) -> None:
        """`seen_bytes`: bytes of the shards before the position."""
        self._events, self._bytes = events, ShardProgress(urls, seen_bytes)
        self._shards = {url: shard for shard, url in reversed(list(enumerate(urls)))}
        self.position = position

    @property
    def seen_bytes(self) -> int:
        return self._bytes.bytes_read

    def advance(self, sample: Sample) -> None:
        """Move the position behind a sample."""
        self._bytes.add(sample)
        shard = self._shards[sample["__url__"]]
        before = self.position.sample if self.position.shard == shard else 0
        self.position = ShardPosition(shard, before + 1)

    def report_encoded(self, done: int) -> None:
        share = self._bytes.fraction()
        total = round(done / share) if share else None
        self._events.send("index.progress", data={"done": done, "total": total, "phase": "encoding"})

    def report_linked(self, done: int, total: int) -> None:
        self._events.send("index.progress", data={"done": done, "total": total, "phase": "linking"})
