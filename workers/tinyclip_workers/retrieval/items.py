"""The pictures that go into an index: read from shards, decoded, with what a hit will show of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from tinyclip.schemas import JSON, IndexSource

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.shards import Sample, ShardProgress, Skipped, image_bytes, read_shard, read_shards, sample_json
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.types import Pixels

T = TypeVar("T")

BATCH = 64


@dataclass(frozen=True)
class Item:
    id: str
    metadata: JSON
    picture: Pixels


@dataclass(frozen=True)
class Position:
    """How far a set of shards was read: the place of the shard that is being read, and how many of its samples have gone by."""

    shard: int = 0
    sample: int = 0


def read_items(urls: list[str], source: IndexSource, engine: Engine, skipped: Skipped, progress: "Progress") -> Iterator[Item]:
    """Decoded samples in order from where `progress` is, a batch at a time by a few threads; what cannot be read is counted."""

    def read(sample: Sample) -> Item | str:
        try:
            picture = decode_square(image_bytes(sample, source.image_key), engine.image_size)
            return Item(sample["__key__"], _metadata(sample, source), picture)
        except (KeyError, ValueError) as error:
            return str(error.args[0])

    with ThreadPoolExecutor(max(2, torch.get_num_threads())) as pool:
        for samples in batches(read_shards(urls, skipped, reader=_from(urls, progress.position)), BATCH):
            for sample, item in zip(samples, pool.map(read, samples), strict=True):
                progress.saw(sample)
                if isinstance(item, str):
                    skipped.sample(sample["__key__"], item)
                else:
                    yield item


def _metadata(sample: Sample, source: IndexSource) -> JSON:
    """What a hit shows: where the picture is, its caption, and the sample's own documents, whose fields win."""
    metadata: JSON = {"key": sample["__key__"], "shard": sample["__url__"]}
    if "txt" in sample:
        metadata["caption"] = sample["txt"].decode("utf-8", "replace").strip()
    for key in source.metadata_keys:
        if key == "json":
            metadata |= sample_json(sample)
        elif key in sample:
            metadata[key] = sample[key].decode("utf-8", "replace")
    return metadata


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _from(urls: list[str], position: Position) -> Callable[[str], Iterator[Sample]]:
    """A reader of shards that goes on at a position."""
    passed = set(urls[: position.shard])

    def read(url: str) -> Iterator[Sample]:
        if url in passed:
            return iter(())
        is_first = position.shard < len(urls) and url == urls[position.shard]
        return islice(read_shard(url), position.sample if is_first else 0, None)

    return read


class Progress:
    """How far the job is, as a number of items and as a position in the shards."""

    def __init__(self, events: EventWriter, urls: list[str], position: Position = Position(), seen: int = 0) -> None:
        """`seen`: bytes of the shards that had gone by at the position."""
        self._events, self._bytes = events, ShardProgress(urls, seen)
        self._places = {url: place for place, url in reversed(list(enumerate(urls)))}
        self.position = position

    @property
    def seen(self) -> int:
        return self._bytes.seen

    def saw(self, sample: Sample) -> None:
        self._bytes.add(sample)
        place = self._places[sample["__url__"]]
        before = self.position.sample if self.position.shard == place else 0
        self.position = Position(place, before + 1)

    def report(self, done: int) -> None:
        share = self._bytes.fraction()
        total = round(done / share) if share else None
        self._events.send("index.progress", data={"done": done, "total": total, "phase": "encoding"})

    def report_linked(self, done: int, total: int) -> None:
        self._events.send("index.progress", data={"done": done, "total": total, "phase": "linking"})
