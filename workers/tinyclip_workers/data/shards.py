"""WebDataset shards: which ones a pattern names, and the samples inside.

A sample is the dictionary that webdataset makes: `__key__`, `__url__` and one entry of bytes for each file, by extension.
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
from webdataset.tariterators import group_by_keys

from tinyclip_workers.data.tar_files import read_members
from tinyclip_workers.runtime.filesystems import open_filesystem

log = logging.getLogger(__name__)

Sample = dict[str, Any]

TAR_BLOCK = 512

BROKEN_SHARD = (OSError, tarfile.TarError, EOFError)
"""What a shard that is missing, cut off or not a tar raises (gzip errors are OSError or EOFError)."""


class DataError(ValueError):
    """Data that cannot be used: `field` says where in the spec, `value` what was there, the message the way out."""

    def __init__(self, message: str, *, field: str = "data.train.shards", value: Any = None) -> None:
        super().__init__(message)
        self.field, self.value = field, value


@dataclass
class Skipped:
    """What could not be read, counted for the report; the first of each kind is kept as an example."""

    samples: int = 0
    shards: int = 0
    examples: list[str] = field(default_factory=list)

    def sample(self, key: str, why: object) -> None:
        self.samples += 1
        self._example(f"sample {key}: {why}")

    def shard(self, url: str, why: object) -> None:
        self.shards += 1
        self._example(f"shard {url}: {why}")

    def _example(self, text: str) -> None:
        if len(self.examples) < 5:
            self.examples.append(text)
            log.warning("skipped %s", text)


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Brace lists and globs over local paths, s3:// and http(s):// as a list of addresses in a fixed order.

    A pattern that names nothing stays out of the list; a plain path is kept whether it exists or not (reading tells).
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for url in braceexpand.braceexpand(pattern):
            found += _glob(url) if any(c in url for c in "*?[") else [url]
    return found


def _glob(url: str) -> list[str]:
    if "://" not in url:
        return sorted(glob.glob(url))
    fs, path = open_filesystem(url)
    return sorted(fs.unstrip_protocol(p) for p in fs.glob(path))


def read_shard(url: str) -> Iterator[Sample]:
    """The samples of one shard (.tar or .tar.gz), in order. Links, folders and devices inside are passed over.

    Raises one of BROKEN_SHARD where the shard is missing, cut off, no tar or a hostile one, or at an address that is not
    opened.
    """
    fs, path = open_filesystem(url)
    with fs.open(path, "rb") as file:
        members = ({"fname": name, "data": data, "__url__": url} for name, data in read_members(file))
        yield from group_by_keys(members)


def read_shards(
    urls: Sequence[str], skipped: Skipped, *, reader: Callable[[str], Iterator[Sample]] = read_shard
) -> Iterator[Sample]:
    """The samples of many shards. A broken shard is tried once more from where it broke, then skipped and counted.

    Raises DataError if every shard is broken.
    """
    broken = 0
    for url in urls:
        given = 0
        for last_try in (False, True):
            try:
                for index, sample in enumerate(reader(url)):
                    if index >= given:
                        given += 1
                        yield sample
                break
            except BROKEN_SHARD as error:
                if last_try:
                    broken += given == 0
                    skipped.shard(url, error)
    if urls and broken == len(urls):
        raise DataError(f"none of the {len(urls)} shards can be read, the first is {urls[0]}; check the paths", value=urls[0])


def field_of(sample: Sample, key: str) -> Any:
    """A field by its spec name: `txt` or `cls` (a file of the sample, as text) or `json.FIELD`. KeyError if it is not there."""
    if not key.startswith("json."):
        return sample[key].decode("utf-8")
    document: Any = sample_json(sample)
    for part in key.split(".")[1:]:
        document = document[part]
    return document


def sample_json(sample: Sample) -> dict[str, Any]:
    """The sample's JSON document; empty if it has none."""
    if "json" not in sample:
        return {}
    document = json.loads(sample["json"])
    if not isinstance(document, dict):
        raise ValueError("the sample's JSON is not an object")
    return document


def image_bytes(sample: Sample, image_keys: Sequence[str]) -> bytes:
    """The sample's picture, by the first of the extensions that it has. KeyError if it has none."""
    for key in image_keys:
        if key in sample:
            data: bytes = sample[key]
            return data
    raise KeyError(f"no image under {', '.join(image_keys)}; it has {', '.join(k for k in sample if not k.startswith('__'))}")


def captions_of(sample: Sample, caption_key: str) -> list[str]:
    """All captions of a sample, stripped; ValueError if there is none."""
    value = field_of(sample, caption_key)
    texts = [str(v).strip() for v in (value if isinstance(value, list) else [value])]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f"no caption under {caption_key}")
    return texts


def is_held_out(key: str, fraction: float) -> bool:
    """Whether training never sees this sample: decided by a hash of its key, so it is the same everywhere and for ever."""
    return fraction > 0 and int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < fraction


def matches(sample: Sample, where: dict[str, Any]) -> bool:
    """Whether the sample's JSON has all these values."""
    document = sample_json(sample) if where else {}
    return all(document.get(key) == value for key, value in where.items())


class ShardProgress:
    """Told of every sample; `urls` are the shards, as often as they are read."""

    def __init__(self, urls: list[str], seen: int = 0) -> None:
        self.seen, self._total = seen, _total_bytes(urls)

    def add(self, sample: Sample) -> None:
        """A file in a tar takes a header and its bytes, both rounded up to blocks."""
        for key, data in sample.items():
            if not key.startswith("__"):
                self.seen += TAR_BLOCK + -(-len(data) // TAR_BLOCK) * TAR_BLOCK

    def fraction(self) -> float | None:
        """0 to 1; null where a store does not tell sizes, or shards are packed."""
        return min(1.0, self.seen / self._total) if self._total else None


def _total_bytes(urls: list[str]) -> int | None:
    """Unreadable shards count nothing: that they are is found when they are read."""
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
