"""Read the samples of WebDataset shards: tars in which files of one name, but for the extension, are a sample."""

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.tar_files import Member, Unread, read_members
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.user_files import open_file, store_errors

TAR_BLOCK = 512

MAX_SAMPLE_BYTES, MAX_SAMPLE_FILES = 64 << 20, 64
"""Limits of the files of one sample together."""

_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
"""As webdataset: the extension begins at the first dot of the name."""

BROKEN_SHARD = (OSError, tarfile.TarError, EOFError)
"""Exceptions of a shard that is missing, truncated or not a tar (gzip errors are OSError or EOFError)."""


def read_shard(url: str, *, block_bytes: int | None = None) -> Iterator[Sample]:
    """Yield the samples of one shard (.tar or .tar.gz), in order. Links, folders and devices inside are skipped.

    `block_bytes`: as `open_file`. Raises one of BROKEN_SHARD if the shard is missing, truncated or not a tar, or if its address
    is forbidden.
    """
    with open_file(url, block_bytes=block_bytes) as file:
        yield from (placed.sample for placed in read_placed(url, file))


class PlacedSample(NamedTuple):
    """A sample, and its place in the decompressed tar: it can be read again from there."""

    sample: Sample
    start: int
    end: int


def read_placed(url: str, file: IO[bytes]) -> Iterator[PlacedSample]:
    """Yield the samples of an open shard, or of a part of an uncompressed one that begins with a sample; as `read_shard`."""
    return _group(url, read_members(file))


def _group(url: str, members: Iterable[Member]) -> Iterator[PlacedSample]:
    """Yield the samples of successive files, as webdataset's `group_by_keys`; files that cannot be used are `__defects__`."""
    sample: Sample | None = None
    used = start = end = 0
    for name, content, first, last in members:
        parts = _KEY_AND_EXTENSION.fullmatch(name)
        key, extension = (parts[1], parts[2].lower()) if parts else (name, "")
        if extension.startswith("__") or (parts is None and isinstance(content, bytes)):
            continue  # a file with the name of an entry of ours, or one of no sample
        if sample is None or key != sample["__key__"]:
            if sample is not None:
                yield PlacedSample(sample, start, end)
            sample, used, start = {"__key__": key, "__url__": url, "__defects__": {}}, 0, first
        used += len(content) if isinstance(content, bytes) else 0
        _add(sample, extension, content if used <= MAX_SAMPLE_BYTES else Unread(f"its files exceed {MAX_SAMPLE_BYTES:,} bytes"))
        end = last
    if sample is not None:
        yield PlacedSample(sample, start, end)


def _add(sample: Sample, extension: str, content: bytes | Unread) -> None:
    defects: dict[str, str] = sample["__defects__"]
    if extension in sample or extension in defects:
        sample.pop(extension, None)
        defects[extension] = "there are several files of that name"
    elif len(sample) - 3 + len(defects) >= MAX_SAMPLE_FILES:  # 3 entries are ours
        defects[""] = f"it has more than {MAX_SAMPLE_FILES} files"
    elif isinstance(content, bytes):
        sample[extension] = content
    else:
        defects[extension] = content.reason


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
            with store_errors(url):
                size = fs.size(path)
        except (OSError, ValueError):
            continue
        if size is None or url.endswith("gz"):
            return None
        total += size
    return total
