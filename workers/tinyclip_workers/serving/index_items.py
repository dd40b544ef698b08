"""The pictures that go into an index: read from shards, decoded, with what a hit will show of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from tinyclip.schemas import JSON, IndexSource

from tinyclip_workers.decoding import decode_square
from tinyclip_workers.images import Pixels
from tinyclip_workers.report import EventWriter
from tinyclip_workers.serving.engine import Engine
from tinyclip_workers.shard_bytes import SeenBytes
from tinyclip_workers.shards import Sample, Skipped, image_bytes, read_shards, sample_json

T = TypeVar("T")

BATCH = 64


@dataclass(frozen=True)
class Item:
    id: str
    metadata: JSON
    picture: Pixels


def read_items(urls: list[str], source: IndexSource, engine: Engine, skipped: Skipped, progress: "Progress") -> Iterator[Item]:
    """Decoded samples in order, a batch at a time decoded by a few threads; what cannot be read is counted."""

    def read(sample: Sample) -> Item | None:
        try:
            picture = decode_square(image_bytes(sample, source.image_key), engine.image_size)
            return Item(sample["__key__"], _metadata(sample, source), picture)
        except (KeyError, ValueError) as error:
            skipped.sample(sample["__key__"], error.args[0])
            return None

    with ThreadPoolExecutor(max(2, torch.get_num_threads())) as pool:
        for samples in batches(read_shards(urls, skipped), BATCH):
            for sample, item in zip(samples, pool.map(read, samples), strict=True):
                progress.saw(sample)
                if item is not None:
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


class Progress:
    """How far the job is, as a number of items."""

    def __init__(self, events: EventWriter, urls: list[str]) -> None:
        self._events, self._bytes = events, SeenBytes(urls)

    def saw(self, sample: Sample) -> None:
        self._bytes.saw(sample)

    def report(self, done: int) -> None:
        share = self._bytes.share()
        self._events.send("index.progress", data={"done": done, "total": round(done / share) if share else None})
