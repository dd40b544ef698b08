"""Inspection of shards for a plan: whether they exist, and some of their samples; all samples if they are small."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

from tinyclip_workers.data.shards import BROKEN_SHARD, Sample, expand_shards, read_shard
from tinyclip_workers.runtime.filesystems import open_filesystem

READ_WHOLE_BYTES = 256 << 20
"""Shards of at most this many bytes together are read to the end: counts and labels are then exact."""

SAMPLED_SHARDS, SAMPLES_PER_SHARD = 4, 64
SIZED_REMOTE_SHARDS = 64
"""The sizes of at most this many remote shards, evenly spread, are requested."""

SAMPLES_WITH_IMAGES = 8
"""The first samples of each shard keep their images."""

MAX_PROBLEMS = 5

Problem = tuple[str, str]
"""A shard (or pattern) and what is wrong with it."""


@dataclass
class ShardInspection:
    """The result of inspecting a set of shards."""

    samples: list[Sample] = field(default_factory=list)
    """webdataset's samples with `__bytes__` (their size in the shard) and `__dropped__` (True: images were replaced by b"")."""
    complete: bool = True
    """True if `samples` are all samples."""
    bytes: int = 0
    """Size of all shards; an estimate if there are many remote ones."""
    problems: list[Problem] = field(default_factory=list)

    def estimate(self) -> int:
        """Return the number of samples: counted, or estimated from the size of those that were read."""
        if self.complete or not self.samples:
            return len(self.samples)
        read: int = sum(sample["__bytes__"] for sample in self.samples)
        return max(1, round(self.bytes * len(self.samples) / read))


def inspect_shards(patterns: str | Sequence[str]) -> ShardInspection:
    """Inspect shards. Missing, empty and broken ones are among the `problems`, at most MAX_PROBLEMS of them."""
    inspection = ShardInspection()
    try:
        urls = expand_shards(patterns)
    except (OSError, ValueError) as error:  # a glob lists the store
        inspection.problems.append((str(patterns), f"cannot be read ({error}); check address and access"))
        return inspection
    if not urls:
        inspection.problems.append((str(patterns), "names no shard; check the path and the pattern"))
        return inspection
    sizes = _sizes(urls, inspection)
    known = [size for size, _ in sizes.values()]
    inspection.bytes = round(sum(known) / max(1, len(known)) * len(urls))
    inspection.complete = len(sizes) == len(urls) and inspection.bytes <= READ_WHOLE_BYTES
    existing = list(sizes)
    for url in existing if inspection.complete else _spread(existing, SAMPLED_SHARDS):
        samples, problem = _read(url, sizes[url], None if inspection.complete else SAMPLES_PER_SHARD)
        inspection.samples += samples
        if problem:
            inspection.problems.append((url, problem))
    if len(inspection.problems) > MAX_PROBLEMS:
        more = len(inspection.problems) - MAX_PROBLEMS
        inspection.problems = [*inspection.problems[:MAX_PROBLEMS], (f"{more} more shards", "cannot be used either")]
    return inspection


def shard_urls(patterns: str | Sequence[str]) -> set[str]:
    """Return the shards' addresses; none if a store cannot be listed, which `inspect_shards` reports."""
    try:
        return set(expand_shards(patterns))
    except (OSError, ValueError):
        return set()


def extensions(sample: Sample) -> str:
    """Return the extensions of a sample's files, for messages."""
    return ", ".join(sorted(key for key in sample if not key.startswith("__"))) or "nothing"


def _sizes(urls: list[str], inspection: ShardInspection) -> dict[str, tuple[int, str]]:
    """Return bytes and a stamp that changes with the content, for every local shard and for some remote ones."""
    sizes: dict[str, tuple[int, str]] = {}
    for url in urls if "://" not in urls[0] else _spread(urls, SIZED_REMOTE_SHARDS):
        try:
            fs, path = open_filesystem(url)
            info: dict[str, Any] = fs.info(path)
        except FileNotFoundError:
            inspection.problems.append((url, "is not there; check the path"))
        except (OSError, ValueError) as error:
            inspection.problems.append((url, f"cannot be read ({error}); check address and access"))
        else:
            stamp = str(info.get("mtime") or info.get("ETag") or info.get("LastModified") or "")
            sizes[url] = int(info.get("size") or 0), stamp
    return sizes


@lru_cache(maxsize=256)
def _read(url: str, size: tuple[int, str], limit: int | None) -> tuple[tuple[Sample, ...], str]:
    """Return samples of one shard and what is wrong with it, cached until its size or stamp changes."""
    samples: list[Sample] = []
    problem = ""
    try:
        for sample in read_shard(url):
            samples.append(_without_images(sample, len(samples)))
            if len(samples) == limit:
                break
    except BROKEN_SHARD as error:
        problem = f"is not a whole tar file ({error}); write it again"
    if not samples and not problem:
        problem = "has no samples; a shard is a tar of files like KEY.png and KEY.txt"
    return tuple(samples), problem


def _without_images(sample: Sample, index: int) -> Sample:
    """Return the sample with its images replaced by b"", except for the first few samples of a shard."""
    files = {key: value for key, value in sample.items() if isinstance(value, bytes)}
    reduced: Sample = {"__key__": sample["__key__"], "__url__": sample["__url__"]}
    reduced["__bytes__"] = sum(512 + math.ceil(len(data) / 512) * 512 for data in files.values())
    reduced["__dropped__"] = index >= SAMPLES_WITH_IMAGES
    dropped = _image_extensions() if index >= SAMPLES_WITH_IMAGES else frozenset()
    return {**reduced, **{key: b"" if key.rsplit(".", 1)[-1] in dropped else data for key, data in files.items()}}


@lru_cache(maxsize=1)
def _image_extensions() -> frozenset[str]:
    return frozenset(extension.lstrip(".") for extension in Image.registered_extensions())


def _spread(urls: list[str], count: int) -> list[str]:
    if len(urls) <= count:
        return urls
    return [urls[round(i * (len(urls) - 1) / (count - 1))] for i in range(count)]
