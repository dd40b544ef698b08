"""Scan one shard: find the place of each sample, and check that it has an image and a caption."""

import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, Protocol

import pyarrow as pa
from fsspec.implementations.http import HTTPFileSystem
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.datacompdr import synthetic_captions
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.images import decoder_errors, open_image, upright_transpose
from tinyclip_workers.data.index.rows import SampleRow, ShardRow, Use, samples_table
from tinyclip_workers.data.samples import (
    Sample,
    UnusableSample,
    captions_by_language,
    captions_of,
    image_bytes,
    is_held_out,
    printable,
    sample_errors,
    text_field,
)
from tinyclip_workers.data.shards import BROKEN_SHARD, read_placed
from tinyclip_workers.data.tar_streams import is_compressed
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.user_files import UnreadableFile, open_file, store_errors

log = logging.getLogger(__name__)

MAX_PROBLEM = 200
READ_BYTES = 8 << 20
"""Size of the requests for remote shards."""


class Examiner(Protocol):
    """Looks at the samples of one shard while it is scanned."""

    def selects(self, sample: Sample) -> bool:
        """Return False for a sample that is not part of the data set, which is not looked at further. Raises any exception."""
        ...

    def examine(self, sample: Sample, row: SampleRow, captions: list[str]) -> None:
        """Look at a sample with an image and captions. It may change the row, also later. Raises any exception."""
        ...

    def passed(self, sample: Sample, row: SampleRow) -> None:
        """Take note of a sample after everything else, usable or not."""
        ...

    def finish(self) -> None:
        """Make the last changes to rows."""
        ...


@dataclass
class ScannedShard:
    """The result of scanning one shard."""

    shard: ShardRow
    samples: pa.Table
    skipped: Skipped
    """Samples that cannot be used, and the shard if it could not be read to its end; samples before that are kept."""
    broken: str | None = None
    """Why the shard could not be read to its end."""
    passing: bool = False
    """True if the reason may pass: the store failed, rather than that the shard is damaged."""


def scan_shard(url: str, train: TrainData, examiner: Examiner | None = None) -> ScannedShard:
    """Read a shard once. Broken samples become rows with the reason; a shard that breaks off keeps what came before.

    Raises an OSError if the store cannot be reached at all; DataError never.
    """
    steps = scan_steps(url, train, examiner)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            scanned: ScannedShard = end.value
            return scanned


def scan_steps(url: str, train: TrainData, examiner: Examiner | None = None) -> Generator[int, None, ScannedShard]:
    """Scan a shard as `scan_shard`, and yield the bytes that were read of it after each sample."""
    rows: list[SampleRow] = []
    broken, passing, skipped = None, False, Skipped()
    with _Hashing(open_file(url, block_bytes=READ_BYTES)) as file:
        try:
            for sample, start, end in read_placed(url, file):  # type: ignore[arg-type]  # it has what is read from a file
                rows.append(scan_sample(sample, start, end, train, examiner))
                yield file.count
        except BROKEN_SHARD as error:
            broken, passing = printable(str(error) or type(error).__name__, MAX_PROBLEM), may_pass(error)
        try:
            file.finish()
        except OSError as error:
            broken, passing = broken or printable(str(error), MAX_PROBLEM), True
    if examiner is not None:
        examiner.finish()
    if broken is not None:
        skipped.add_shard(url, broken)
    for row in rows:
        if row.problem is not None:
            skipped.add_sample(row.key, row.problem)
    pairs = sum(row.use == Use.TRAINING for row in rows)
    sequential = file.is_compressed or not has_ranges(url)
    shard = ShardRow(url, file.count, file.hexdigest(), len(rows), pairs, sequential)
    return ScannedShard(shard, samples_table(rows), skipped, broken, passing)


def scan_or_empty(url: str, train: TrainData) -> ScannedShard:
    """Scan a shard; one that cannot be opened, twice, has no samples."""
    for last_try in (False, True):
        try:
            return scan_shard(url, train)
        except (OSError, EOFError) as error:
            log.warning("shard %s cannot be read: %s", url, error)
            if last_try:
                return unread_shard(url, error)
    raise AssertionError("unreachable")


def unread_shard(url: str, error: Exception) -> ScannedShard:
    """Return the result for a shard that cannot be opened."""
    skipped, reason = Skipped(), printable(str(error) or type(error).__name__, MAX_PROBLEM)
    skipped.add_shard(url, reason)
    return ScannedShard(ShardRow(url, 0, None, 0, 0), samples_table([]), skipped, reason, may_pass(error))


def may_pass(error: Exception) -> bool:
    """Return whether an error of reading a shard is one of its store, which may pass."""
    lasting = (gzip.BadGzipFile, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, UnreadableFile)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def scan_sample(sample: Sample, start: int, end: int, train: TrainData, examiner: Examiner | None = None) -> SampleRow:
    """Make the row of one sample, which is never an error."""
    row = SampleRow(sample["__key__"], start, end - start, crc=content_crc(sample))
    try:
        with sample_errors():
            if examiner is None or examiner.selects(sample):
                _fill_row(row, sample, train, examiner)
            else:
                row.use = Use.EXCLUDED
    except UnusableSample as error:
        row.use, row.problem = Use.UNUSABLE, printable(str(error), MAX_PROBLEM)
    if examiner is not None:
        examiner.passed(sample, row)
    return row


def _fill_row(row: SampleRow, sample: Sample, train: TrainData, examiner: Examiner | None) -> None:
    """Raises any exception."""
    row.width, row.height = _upright_size(image_bytes(sample, train.image_key))
    captions = captions_of(sample, train.caption_key)
    row.lacking = languages_without(sample, train)
    synthetic = synthetic_captions(sample)
    row.captions, row.synthetic, row.more_captions = len(captions), len(synthetic), synthetic or None
    row.distinct = distinct_hash(sample, train.distinct_key)
    if is_held_out(sample["__key__"], train.holdout):
        row.use = Use.HELD_OUT
    if examiner is not None:
        examiner.examine(sample, row, captions)


def languages_without(sample: Sample, train: TrainData) -> int:
    """Return the languages of a spec that a sample has no caption in, as bits. Raises as `captions_of`."""
    if not train.languages:
        return 0
    found = captions_by_language(sample, train.caption_key, train.languages[0])
    return sum(1 << bit for bit, language in enumerate(train.languages) if language not in found)


def content_crc(sample: Sample) -> int:
    """Return the CRC-32 of the contents of a sample's files, in the order of the shard."""
    crc = 0
    for name, content in sample.items():
        if not name.startswith("__"):
            crc = zlib.crc32(content, crc)
    return crc


def distinct_hash(sample: Sample, key: str | None) -> int:
    """Return a hash of a field that no two pairs of a batch share; 0 for samples without it, which are distinct from all."""
    if key is None:
        return 0
    try:
        with sample_errors():
            value = text_field(sample, key)
    except UnusableSample:
        return 0
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "big") if value else 0


def has_ranges(url: str) -> bool:
    """Return whether a part of a file can be requested."""
    fs, path = open_filesystem(url)
    if not isinstance(fs, HTTPFileSystem):
        return True
    with store_errors(url):
        return bool(fs.info(path).get("partial"))


def _upright_size(data: bytes) -> tuple[int, int]:
    with decoder_errors():
        image = open_image(data)
    turn = upright_transpose(image)
    swapped = turn is not None and turn.name in ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    return (image.height, image.width) if swapped else (image.width, image.height)


class _Hashing(io.RawIOBase):
    """A file that counts and hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha256, self.count = file, hashlib.sha256(), 0
        self.is_compressed = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not self.count:
            self.is_compressed = is_compressed(data[:6])
        self.count += len(data)
        self._sha256.update(data)
        return data

    def finish(self) -> None:
        """Read the rest: the digest is that of the whole file."""
        while self.read(1 << 20):
            pass

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()

