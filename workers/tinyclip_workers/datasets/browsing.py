"""Samples of a version for people: pages of its index with the captions, and thumbnails of the images.

The planner's process answers with it. Everything that one answer reads is limited.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tinyclip.artifacts.paths import dataset_document, dataset_samples, dataset_shards, dataset_version
from tinyclip.schemas import DatasetSample, DatasetVersion
from tinyclip.schemas.datasets import SampleUse

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.reading import read_rows
from tinyclip_workers.data.index.rows import ShardSamples, Use, from_parquet, shard_rows
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_of, printable, sample_errors
from tinyclip_workers.data.shards import BROKEN_SHARD
from tinyclip_workers.data.thumbnails import SKIPPED_BYTES, NoThumbnail, sample_thumbnail
from tinyclip_workers.runtime.filesystems import open_own_store

PAGE_BYTES = 32 << 20
"""Bytes of shards that a page reads for its captions; it ends with the first sample that exceeds them."""
LOOKED_SHARDS = 64
"""Shards whose index one answer looks at."""
READS = 64
"""Parts of shards that a page reads."""
SHOWN_CAPTIONS, SHOWN_CHARACTERS = 10, 500
KEPT_SHARDS = 8


class NoSuchSample(LookupError):
    """No sample has the key, or none could be shown; the message has the reason."""


@dataclass(frozen=True)
class SamplePage:
    """Samples, and the number of the one to continue with; None at the end."""

    items: list[DatasetSample]
    next: int | None


@dataclass(frozen=True)
class _Place:
    shard: int
    row: int


class Browser:
    """The index of one version."""

    def __init__(self, root: str, name: str, number: int) -> None:
        """Raises OSError."""
        self._store, self._folder = open_own_store(root), dataset_version(name, number)
        self.version = DatasetVersion.model_validate_json(self._store.read_bytes(dataset_document(name, number)))
        self._shards = shard_rows(from_parquet(self._store.read_bytes(dataset_shards(self._folder))))
        self._firsts = np.concatenate([[0], np.cumsum([shard.samples for shard in self._shards])])
        """Number of the first sample of each shard, and of all samples."""

    def page(self, start: int, limit: int, use: SampleUse | None = None) -> SamplePage:
        """Return samples from number `start` on, only those of a `use`. A short page need not be the last. Raises OSError."""
        items: list[DatasetSample] = []
        left, reads = PAGE_BYTES, READS
        for looked, (shard, samples, rows) in enumerate(self._rows_from(start, use)):
            if looked == LOOKED_SHARDS:
                return SamplePage(items, int(self._firsts[shard]))
            for run in _runs(rows[: limit - len(items)]):
                fitting = _fitting(samples, run, left)
                items += self._describe(shard, samples, fitting)
                left, reads = left - int(samples.length_N[fitting.start : fitting.stop].sum()), reads - 1
                if len(fitting) < len(run) or left <= 0 or reads == 0 or len(items) == limit:
                    return SamplePage(items, self._number_after(shard, fitting.stop - 1))
        return SamplePage(items, None)

    def thumbnail(self, key: str, number: int | None, size: int) -> bytes:
        """Return a JPEG of a sample's image whose longer side has at most `size` pixels. Raises NoSuchSample, OSError.

        Keys are those that pages show. Without the sample's number, it is looked for in the first shards.
        """
        place = self._find(key) if number is None else self._at(key, number)
        samples = self._samples(place.shard)
        sample = self._read(place.shard, samples, range(place.row, place.row + 1))
        if isinstance(sample, str):
            raise NoSuchSample(f"sample {key} cannot be read: {sample}")
        try:
            return sample_thumbnail(sample[place.row], key, self.version.source.image_key, size)
        except NoThumbnail as error:
            raise NoSuchSample(str(error)) from error

    def _rows_from(self, start: int, use: SampleUse | None) -> Iterator[tuple[int, ShardSamples, list[int]]]:
        """Yield the wanted rows of each shard, from the one with sample `start` on."""
        first = int(np.searchsorted(self._firsts, start, side="right")) - 1
        for shard in range(first, len(self._shards)):
            if self._shards[shard].samples:
                samples = self._samples(shard)
                rows = np.arange(max(0, start - int(self._firsts[shard])), len(samples))
                if use is not None:
                    rows = rows[samples.table.column("use").to_numpy()[rows] == Use[use.upper()]]
                yield shard, samples, rows.tolist()

    def _describe(self, shard: int, samples: ShardSamples, rows: range) -> list[DatasetSample]:
        read = self._read(shard, samples, rows) if rows else {}
        columns = samples.table.slice(rows.start, len(rows)).to_pylist()
        described = []
        for row, column in zip(rows, columns, strict=True):
            captions = self._captions(read[row]) if isinstance(read, dict) else []
            shown = [caption[:SHOWN_CHARACTERS] for caption in [*captions, *samples.more_captions(row)]][:SHOWN_CAPTIONS]
            described.append(
                DatasetSample(
                    number=int(self._firsts[shard]) + row, key=printable(samples.key(row)), shard=self._shards[shard].url,
                    offset=column["offset"], length=column["length"], captions=shown, width=column["width"],
                    height=column["height"], use=SampleUse[Use(column["use"]).name], problem=column["problem"],
                    unread=read if isinstance(read, str) else None,
                )
            )
        return described

    def _captions(self, sample: Sample) -> list[str]:
        try:
            with sample_errors():
                return captions_of(sample, self.version.source.caption_key)
        except UnusableSample:
            return []  # its `problem` has the reason

    def _read(self, shard: int, samples: ShardSamples, rows: range) -> dict[int, Sample] | str:
        """Return samples by row, or why they cannot be read."""
        row = self._shards[shard]
        if row.sequential and int(samples.offset_N[rows.start]) > SKIPPED_BYTES:
            return f"it lies behind {SKIPPED_BYTES:,} bytes of a shard that can only be read from its beginning"
        try:
            return read_rows(row, samples, rows.start, rows.stop)
        except (DataError, *BROKEN_SHARD) as error:
            return printable(str(error))

    def _find(self, key: str) -> _Place:
        """Return the first sample with a key. Raises NoSuchSample."""
        wanted = pa.scalar(key.encode("utf-8", "surrogatepass"), pa.binary())
        for shard in range(min(LOOKED_SHARDS, len(self._shards))):
            row = pc.index(self._samples(shard).table.column("key"), wanted).as_py()
            if row >= 0:
                return _Place(shard, row)
        where = "in its first shards; give its number" if len(self._shards) > LOOKED_SHARDS else ""
        raise NoSuchSample(f"{self.version.name}@{self.version.version} has no sample {key} {where}".rstrip())

    def _at(self, key: str, number: int) -> _Place:
        if 0 <= number < int(self._firsts[-1]):
            shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
            row = number - int(self._firsts[shard])
            if printable(self._samples(shard).key(row)) == key:
                return _Place(shard, row)
        raise NoSuchSample(f"sample {number} of {self.version.name}@{self.version.version} is not {key}")

    def _number_after(self, shard: int, row: int) -> int | None:
        number = int(self._firsts[shard]) + row + 1
        return number if number < int(self._firsts[-1]) else None

    @lru_cache(KEPT_SHARDS)  # noqa: B019 - few browsers are kept, and each as long as its samples
    def _samples(self, shard: int) -> ShardSamples:
        return ShardSamples(from_parquet(self._store.read_bytes(dataset_samples(self._folder, shard))))


@lru_cache(4)
def open_version(root: str, name: str, number: int) -> Browser:
    """Return the browser of a version; those of the last ones are kept. Raises OSError."""
    return Browser(root, name, number)


def _runs(rows: Sequence[int]) -> Iterator[range]:
    """Divide rows in order into ranges of successive ones, which are read at once."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place] != rows[place - 1] + 1:
            yield range(rows[start], rows[place - 1] + 1)
            start = place


def _fitting(samples: ShardSamples, rows: range, limit: int) -> range:
    """Return the first rows that have `limit` bytes together, at least one."""
    total = np.cumsum(samples.length_N[rows.start : rows.stop])
    return range(rows.start, rows.start + max(1, int((total <= limit).sum())))
