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
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, sample_errors, small_file, storable_json
from tinyclip_workers.data.shards import ShardProgress, read_shard, read_shards
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.types import Pixels

T = TypeVar("T")

BATCH = 64


@dataclass(frozen=True)
class Item:
    """A decoded sample."""

    id: str
    metadata: JSON
    image: Pixels


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

    def read(sample: Sample) -> Item | str:
        try:
            with sample_errors():
                image = decode_square(image_bytes(sample, source.image_key), engine.image_size)
                return Item(sample["__key__"], _metadata(sample, source), image)
        except UnusableSample as error:
            return str(error)

    with ThreadPoolExecutor(max(2, torch.get_num_threads())) as pool:
        for samples in batches(read_shards(urls, skipped, reader=_reader_from(urls, progress.position)), BATCH):
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
        return islice(read_shard(url), position.sample if is_first else 0, None)

    return read


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
