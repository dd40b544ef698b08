"""Inspection of shards for a plan: whether they exist, and some of their samples; all samples if they are small."""

import gzip
import math
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from PIL import Image

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import MAX_TEXT_BYTES, Sample
from tinyclip_workers.data.shard_files import ShardFile, describe_shard
from tinyclip_workers.data.shards import TAR_BLOCK, read_shard

READ_WHOLE_BYTES = 256 << 20
"""Shards of at most this many bytes together are read to the end: counts and labels are then exact."""

SAMPLED_SHARDS, SAMPLES_PER_SHARD = 4, 64
SIZED_REMOTE_SHARDS, SIZED_LOCAL_SHARDS = 64, 20_000
"""The sizes of at most this many shards, evenly spread, are requested."""

KEPT_BYTES, CACHED_BYTES = 48 << 20, 16 << 20
"""Limits of the samples that an inspection keeps, and of those that the next one may find cached."""

KEPT_IMAGE_BYTES = 8 << 20
"""A larger image is not kept, and so not decoded."""

BLOCK_BYTES = 4 << 20
"""Size of the requests for remote shards, of which only the first samples are read."""

SAMPLES_WITH_IMAGES = 8
"""The first samples of each shard keep their images."""

MAX_PROBLEMS = 5

T = TypeVar("T")
Problem = tuple[str, str]
"""A shard (or pattern) and what is wrong with it."""


@dataclass
class ShardInspection:
    """The result of inspecting a set of shards."""

    samples: list[Sample] = field(default_factory=list)
    """Samples with `__bytes__` (their size in the shard) and `__dropped__` (True: images were replaced by b"")."""
    complete: bool = True
    """True if `samples` are all samples."""
    bytes: int = 0
    """Size of all shards; an estimate if only some were asked for their size."""
    problems: list[Problem] = field(default_factory=list)
    """The first MAX_PROBLEMS."""
    more_problems: int = 0
    _kept: int = 0

    def estimate(self) -> int:
        """Return the number of samples: counted, or estimated from the size of those that were read."""
        if self.complete or not self.samples:
            return len(self.samples)
        read: int = sum(sample["__bytes__"] for sample in self.samples)
        return max(1, round(self.bytes * len(self.samples) / read))

    def add_problem(self, shard: str, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((shard, message))
        else:
            self.more_problems += 1

    def add(self, reading: "_Reading") -> bool:
        """Add the samples of one shard. Return False, with fewer of them, if all together are too large."""
        for sample in reading.samples:
            self._kept += _kept_bytes(sample)
            if self._kept > KEPT_BYTES:
                self.complete = False
                return False
            self.samples.append(sample)
        self.complete = self.complete and not reading.cut
        return True


def inspect_shards(patterns: str | Sequence[str]) -> ShardInspection:
    """Inspect shards. Missing, empty and broken ones are among the `problems`."""
    inspection = ShardInspection()
    try:
        urls = expand_shards(patterns)
    except DataError as error:
        inspection.add_problem(_shown(patterns), str(error))
        return inspection
    except (OSError, ValueError) as error:  # a glob lists the store
        inspection.add_problem(_shown(patterns), f"cannot be read ({error}); check address and access")
        return inspection
    if not urls:
        inspection.add_problem(_shown(patterns), "names no shard; check the path and the pattern")
        return inspection
    sizes = _sizes(urls, inspection)
    known = [file.bytes for file in sizes.values()]
    inspection.bytes = round(sum(known) / max(1, len(known)) * len(urls))
    inspection.complete = len(sizes) == len(urls) and inspection.bytes <= READ_WHOLE_BYTES
    existing, limit = list(sizes), None if inspection.complete else SAMPLES_PER_SHARD
    for url in existing if inspection.complete else spread(existing, SAMPLED_SHARDS):
        reading = _read(url, sizes[url], limit)
        if reading.problem:
            inspection.add_problem(url, reading.problem)
        if not inspection.add(reading):
            break
    if inspection.more_problems:
        inspection.problems.append((f"{inspection.more_problems} more shards", "cannot be used either"))
    return inspection


def shard_urls(patterns: str | Sequence[str]) -> set[str]:
    """Return the shards' addresses; none if a store cannot be listed, which `inspect_shards` reports."""
    try:
        return set(expand_shards(patterns))
    except (OSError, ValueError):
        return set()


def _shown(patterns: str | Sequence[str]) -> str:
    first = patterns if isinstance(patterns, str) else next(iter(patterns), "")
    return first[:200] if isinstance(patterns, str) or len(patterns) < 2 else f"{first[:200]} and {len(patterns) - 1} more"


def _sizes(urls: list[str], inspection: ShardInspection) -> dict[str, ShardFile]:
    """Describe every shard or, if there are many, some of them."""
    sizes: dict[str, ShardFile] = {}
    for url in spread(urls, SIZED_REMOTE_SHARDS if "://" in urls[0] else SIZED_LOCAL_SHARDS):
        try:
            sizes[url] = describe_shard(url)
        except FileNotFoundError:
            inspection.add_problem(url, "is not there; check the path")
        except (OSError, ValueError) as error:
            inspection.add_problem(url, f"cannot be read ({error}); check address and access")
    return sizes


@dataclass(frozen=True)
class _Reading:
    """Samples of one shard, and what is wrong with it."""

    samples: tuple[Sample, ...]
    problem: str
    bytes: int
    """Memory of the samples, about."""
    cut: bool = False
    """True if reading stopped because they take too much."""


_readings: OrderedDict[tuple[str, ShardFile, int | None], _Reading] = OrderedDict()
"""The last readings, by shard, its size and stamp, and the limit of samples."""


def _read(url: str, file: ShardFile, limit: int | None) -> _Reading:
    """Return a reading, cached until the shard's size or stamp changes; never one without a stamp."""
    if not file.stamp:
        return _read_shard(url, limit)
    key = (url, file, limit)
    if key not in _readings:
        _readings[key] = _read_shard(url, limit)
    _readings.move_to_end(key)
    reading = _readings[key]
    while _readings and sum(other.bytes for other in _readings.values()) > CACHED_BYTES:
        _readings.popitem(last=False)
    return reading


def _read_shard(url: str, limit: int | None) -> _Reading:
    samples: list[Sample] = []
    problem, kept = "", 0
    try:
        for sample in read_shard(url, block_bytes=BLOCK_BYTES):
            samples.append(_reduced(sample, len(samples)))
            kept += _kept_bytes(samples[-1])
            if kept > KEPT_BYTES:
                return _Reading(tuple(samples), "", kept, cut=True)
            if len(samples) == limit:
                break
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        problem = f"is not a whole tar file ({error}); write it again"
    except OSError as error:
        problem = f"cannot be read ({error}); check address and access"
    if not samples and not problem:
        problem = "has no samples; a shard is a tar of files like KEY.png and KEY.txt"
    return _Reading(tuple(samples), problem, kept)


def _kept_bytes(sample: Sample) -> int:
    """Return the memory of a sample, about."""
    return 800 + sum(100 + len(value) for value in sample.values() if isinstance(value, bytes))


def _reduced(sample: Sample, index: int) -> Sample:
    """Return the sample with its images replaced by b"", except for the first few of a shard, and without other large files."""
    files = {key: value for key, value in sample.items() if isinstance(value, bytes)}
    sizes = [TAR_BLOCK + math.ceil(len(data) / TAR_BLOCK) * TAR_BLOCK for data in files.values()]
    reduced: Sample = {**sample, "__bytes__": sum(sizes) or TAR_BLOCK, "__dropped__": False}
    reduced["__defects__"] = dict(sample["__defects__"])
    for key, data in files.items():
        if key.rsplit(".", 1)[-1] in _image_extensions():
            if index >= SAMPLES_WITH_IMAGES or len(data) > KEPT_IMAGE_BYTES:
                reduced[key], reduced["__dropped__"] = b"", True
        elif len(data) > MAX_TEXT_BYTES:
            del reduced[key]
            reduced["__defects__"][key] = f"it has {len(data):,} bytes, at most {MAX_TEXT_BYTES:,} are read"
    return reduced


@lru_cache(maxsize=1)
def _image_extensions() -> frozenset[str]:
    return frozenset(extension.lstrip(".") for extension in Image.registered_extensions())


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """Return at most `count` items, at even distances from the first to the last."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
