"""WebDataset shards: the shards that a pattern names, their samples, and the fields of a sample.

A sample is webdataset's dictionary: `__key__`, `__url__` and one entry of bytes for each file, by extension.
"""

import glob
import hashlib
import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import braceexpand
from tinyclip.addresses import service_problem
from webdataset.tariterators import group_by_keys

from tinyclip_workers.data.tar_files import read_members
from tinyclip_workers.runtime.addresses import AddressRefused, address_rules, expect_address
from tinyclip_workers.runtime.filesystems import open_filesystem

log = logging.getLogger(__name__)

Sample = dict[str, Any]

TAR_BLOCK = 512

BROKEN_SHARD = (OSError, tarfile.TarError, EOFError)
"""Exceptions of a shard that is missing, truncated or not a tar (gzip errors are OSError or EOFError)."""


class DataError(ValueError):
    """Data that cannot be used: `field` of the spec, its `value`, and a message with what to do."""

    def __init__(self, message: str, *, field: str = "data.train.shards", value: Any = None) -> None:
        super().__init__(message)
        self.field, self.value = field, value


@dataclass
class Skipped:
    """Counts of samples and shards that could not be used, with the first few as examples."""

    samples: int = 0
    shards: int = 0
    examples: list[str] = field(default_factory=list)

    def add_sample(self, key: str, reason: object) -> None:
        self.samples += 1
        self._add_example(f"sample {key}: {reason}")

    def add_shard(self, url: str, reason: object) -> None:
        self.shards += 1
        self._add_example(f"shard {url}: {reason}")

    def _add_example(self, text: str) -> None:
        if len(self.examples) < 5:
            self.examples.append(text)
            log.warning("skipped %s", text)


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Expand brace lists and globs over local paths, s3:// and http(s):// to a list of addresses in a fixed order.

    A glob without matches adds nothing. A plain path is added even if it does not exist: reading it fails.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for url in braceexpand.braceexpand(pattern):
            found += _glob(url) if any(c in url for c in "*?[") else [url]
    return found


def _glob(url: str) -> list[str]:
    """Return the addresses that a pattern matches. Raises AddressRefused if it matches any of the service's own files."""
    if "://" in url:
        fs, path = open_filesystem(url)
        found = sorted(str(fs.unstrip_protocol(p)) for p in fs.glob(path))
    else:
        expect_address(url)
        found = sorted(glob.glob(url))
    if any(service_problem(match, address_rules().service) for match in found):
        raise AddressRefused(f"{url} matches files of the service itself; name another folder")
    return found


def read_shard(url: str) -> Iterator[Sample]:
    """Yield the samples of one shard (.tar or .tar.gz), in order. Links, folders and devices inside are skipped.

    Raises one of BROKEN_SHARD if the shard is missing, truncated, malicious or not a tar, or if its address is forbidden.
    """
    fs, path = open_filesystem(url)
    with fs.open(path, "rb") as file:
        members = ({"fname": name, "data": data, "__url__": url} for name, data in read_members(file))
        yield from group_by_keys(members)


def read_shards(
    urls: Sequence[str], skipped: Skipped, *, reader: Callable[[str], Iterator[Sample]] = read_shard
) -> Iterator[Sample]:
    """Yield the samples of many shards. A broken shard is retried once from the sample that failed, then skipped and counted.

    Raises DataError if every shard is broken.
    """
    broken = 0
    for url in urls:
        yielded = 0
        for last_try in (False, True):
            try:
                for index, sample in enumerate(reader(url)):
                    if index >= yielded:
                        yielded += 1
                        yield sample
                break
            except BROKEN_SHARD as error:
                if last_try:
                    broken += yielded == 0
                    skipped.add_shard(url, error)
    if urls and broken == len(urls):
        raise DataError(f"none of the {len(urls)} shards can be read, the first is {urls[0]}; check the paths", value=urls[0])


def field_of(sample: Sample, key: str) -> Any:
    """Return a field by its spec name: `txt` or `cls` (a file of the sample, as text) or `json.FIELD`. Raises KeyError."""
    if not key.startswith("json."):
        return sample[key].decode("utf-8")
    document: Any = sample_json(sample)
    for part in key.split(".")[1:]:
        document = document[part]
    return document


def sample_json(sample: Sample) -> dict[str, Any]:
    """Return the sample's JSON document, or {} if it has none. Raises ValueError."""
    if "json" not in sample:
        return {}
    document = json.loads(sample["json"])
    if not isinstance(document, dict):
        raise ValueError("the sample's JSON is not an object")
    return document


def image_bytes(sample: Sample, image_keys: Sequence[str]) -> bytes:
    """Return the sample's encoded image, by the first of the extensions that it has. Raises KeyError if it has none."""
    for key in image_keys:
        if key in sample:
            data: bytes = sample[key]
            return data
    raise KeyError(f"no image under {', '.join(image_keys)}; it has {', '.join(k for k in sample if not k.startswith('__'))}")


def captions_of(sample: Sample, caption_key: str) -> list[str]:
    """Return all captions of a sample, stripped. Raises KeyError, or ValueError if all are empty."""
    value = field_of(sample, caption_key)
    texts = [str(v).strip() for v in (value if isinstance(value, list) else [value])]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f"no caption under {caption_key}")
    return texts


def is_held_out(key: str, fraction: float) -> bool:
    """Return True if the sample is held out of training. A hash of its key decides, so every process and job agrees."""
    return fraction > 0 and int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < fraction


def matches(sample: Sample, where: dict[str, Any]) -> bool:
    """Return True if the sample's JSON has all these values."""
    document = sample_json(sample) if where else {}
    return all(document.get(key) == value for key, value in where.items())


class ShardProgress:
    """The share of a set of shards that was read, by bytes: no header has the number of samples."""

    def __init__(self, urls: list[str], bytes_read: int = 0) -> None:
        """`urls`: the shards, repeated if they are read several times; `bytes_read`: by earlier attempts."""
        self.bytes_read, self._total = bytes_read, _total_bytes(urls)

    def add(self, sample: Sample) -> None:
        """Count a sample that was read: a file in a tar takes a header and its bytes, both rounded up to blocks."""
        for key, data in sample.items():
            if not key.startswith("__"):
                self.bytes_read += TAR_BLOCK + -(-len(data) // TAR_BLOCK) * TAR_BLOCK

    def fraction(self) -> float | None:
        """Return 0 to 1, or None if a store does not report sizes or shards are compressed."""
        return min(1.0, self.bytes_read / self._total) if self._total else None


def _total_bytes(urls: list[str]) -> int | None:
    """Return the bytes of all shards; unreadable ones count 0, as reading them fails. None if the sum cannot be known."""
    total = 0
    for url in urls:
        try:
            fs, path = open_filesystem(url)
            size = fs.size(path)
        except (OSError, ValueError):
            continue
        if size is None or url.endswith("gz"):
            return None
        total += size
    return total
