"""What a plan sees of shards: that they are there, and samples of them; all samples, where there are not many bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

from tinyclip_workers.data.shards import BROKEN_SHARD, Sample, expand_shards, read_shard
from tinyclip_workers.runtime.filesystems import open_filesystem

READ_WHOLE_BYTES = 256 << 20
"""Shards of together at most so many bytes are read to the end: counts and labels are then exact."""

SAMPLED_SHARDS, SAMPLES_A_SHARD = 4, 64
LISTED_SHARDS = 64
"""Of remote shards at most so many, evenly spread, are asked for their size."""

WITH_IMAGES = 8
"""Of each shard, so many samples keep their pictures."""

MAX_PROBLEMS = 5

Problem = tuple[str, str]
"""The shard (or pattern) and what is wrong with it."""


@dataclass
class ShardInspection:
    """What was seen of a set of shards."""

    samples: list[Sample] = field(default_factory=list)
    """As webdataset gives them, with `__bytes__` (their share of the shard); but for the first, `__dropped__` tells that the
    pictures were replaced by b""."""
    complete: bool = True
    """Whether these are all samples."""
    bytes: int = 0
    """Of all shards; estimated from those that were asked, if there are many."""
    problems: list[Problem] = field(default_factory=list)

    def estimate(self) -> int:
        """How many samples there are: counted, or from the size of those that were seen."""
        if self.complete or not self.samples:
            return len(self.samples)
        seen: int = sum(sample["__bytes__"] for sample in self.samples)
        return max(1, round(self.bytes * len(self.samples) / seen))


def inspect_shards(patterns: str | Sequence[str]) -> ShardInspection:
    """ShardInspection at shards; what is missing, empty or broken is among the `problems`, at most MAX_PROBLEMS of them."""
    inspection = ShardInspection()
    try:
        urls = expand_shards(patterns)
    except (OSError, ValueError) as error:  # a glob has to ask the store
        inspection.problems.append((str(patterns), f"cannot be looked at ({error}); check address and access"))
        return inspection
    if not urls:
        inspection.problems.append((str(patterns), "names no shard; check the path and the pattern"))
        return inspection
    sizes = _sizes(urls, inspection)
    known = [size for size, _ in sizes.values()]
    inspection.bytes = round(sum(known) / max(1, len(known)) * len(urls))
    inspection.complete = len(sizes) == len(urls) and inspection.bytes <= READ_WHOLE_BYTES
    there = list(sizes)
    for url in there if inspection.complete else _spread(there, SAMPLED_SHARDS):
        samples, problem = _read(url, sizes[url], None if inspection.complete else SAMPLES_A_SHARD)
        inspection.samples += samples
        if problem:
            inspection.problems.append((url, problem))
    if len(inspection.problems) > MAX_PROBLEMS:
        more = len(inspection.problems) - MAX_PROBLEMS
        inspection.problems = [*inspection.problems[:MAX_PROBLEMS], (f"{more} more shards", "cannot be used either")]
    return inspection


def shard_urls(patterns: str | Sequence[str]) -> set[str]:
    """The shards by name; none where a store cannot be asked for them, which `inspect_shards` tells."""
    try:
        return set(expand_shards(patterns))
    except (OSError, ValueError):
        return set()


def extensions(sample: Sample) -> str:
    """What a sample consists of, for messages."""
    return ", ".join(sorted(key for key in sample if not key.startswith("__"))) or "nothing"


def _sizes(urls: list[str], inspection: ShardInspection) -> dict[str, tuple[int, str]]:
    """Bytes and a stamp that changes with the content, of every local shard and of some remote ones."""
    sizes: dict[str, tuple[int, str]] = {}
    for url in urls if "://" not in urls[0] else _spread(urls, LISTED_SHARDS):
        try:
            fs, path = open_filesystem(url)
            info: dict[str, Any] = fs.info(path)
        except FileNotFoundError:
            inspection.problems.append((url, "is not there; check the path"))
        except (OSError, ValueError) as error:
            inspection.problems.append((url, f"cannot be looked at ({error}); check address and access"))
        else:
            stamp = str(info.get("mtime") or info.get("ETag") or info.get("LastModified") or "")
            sizes[url] = int(info.get("size") or 0), stamp
    return sizes


@lru_cache(maxsize=256)
def _read(url: str, size: tuple[int, str], limit: int | None) -> tuple[tuple[Sample, ...], str]:
    """Samples of one shard and what is wrong with it, remembered until its size or stamp changes."""
    samples: list[Sample] = []
    problem = ""
    try:
        for sample in read_shard(url):
            samples.append(_light(sample, len(samples)))
            if len(samples) == limit:
                break
    except BROKEN_SHARD as error:
        problem = f"is not a whole tar file ({error}); write it again"
    if not samples and not problem:
        problem = "has no samples; a shard is a tar of files like KEY.png and KEY.txt"
    return tuple(samples), problem


def _light(sample: Sample, index: int) -> Sample:
    """The sample without its picture, but for the first few; files keep their names."""
    files = {key: value for key, value in sample.items() if isinstance(value, bytes)}
    light: Sample = {"__key__": sample["__key__"], "__url__": sample["__url__"]}
    light["__bytes__"] = sum(512 + math.ceil(len(data) / 512) * 512 for data in files.values())
    light["__dropped__"] = index >= WITH_IMAGES
    pictures = _picture_extensions() if index >= WITH_IMAGES else frozenset()
    return {**light, **{key: b"" if key.rsplit(".", 1)[-1] in pictures else data for key, data in files.items()}}


@lru_cache(maxsize=1)
def _picture_extensions() -> frozenset[str]:
    return frozenset(extension.lstrip(".") for extension in Image.registered_extensions())


def _spread(urls: list[str], count: int) -> list[str]:
    if len(urls) <= count:
        return urls
    return [urls[round(i * (len(urls) - 1) / (count - 1))] for i in range(count)]
