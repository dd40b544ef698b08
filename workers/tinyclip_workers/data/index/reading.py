"""Reading samples again from their place, and the check that they are still those of the index."""

import io
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.rows import ShardRow, ShardSamples
from tinyclip_workers.data.index.scanning import content_crc
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import read_placed, read_shard
from tinyclip_workers.runtime.user_files import RangeReader


def shard_changed(url: str, reason: str) -> DataError:
    """Return the error of a shard that is not the one that was registered."""
    remedy = "register the data set again and use its new version, or retry the job if it names shards"
    return DataError(f"{url} has changed since it was read first: {reason}; {remedy}", value=url)


def read_rows(shard: ShardRow, samples: ShardSamples, first: int, last: int) -> dict[int, Sample]:
    """Return rows `first` to `last` (exclusive) of a shard; a sequential one is read from its beginning.

    Raises DataError if it has changed, or one of BROKEN_SHARD.
    """
    if shard.sequential:
        with closing(read_shard(shard.url)) as stream:  # type: ignore[type-var]  # it is a generator
            found = list(islice(stream, first, last))
    else:
        start, end = int(samples.offset_N[first]), int(samples.offset_N[last - 1] + samples.length_N[last - 1])
        with closing(RangeReader(1)) as reader:
            data = reader.read(shard.url, start, end - start)
        found = [placed.sample for placed in read_placed(shard.url, io.BytesIO(data))]
    return check_rows(shard.url, samples, first, found, last - first)


def check_rows(url: str, samples: ShardSamples, first: int, read: Sequence[Sample], expected: int) -> dict[int, Sample]:
    """Return samples by their rows. Raises DataError unless they are those of the index."""
    if len(read) != expected:
        raise shard_changed(url, f"it has {len(read)} samples where {expected} were")
    for row, sample in enumerate(read, start=first):
        if sample["__key__"] != samples.key(row):
            raise shard_changed(url, f"sample {sample['__key__']!r} is where {samples.key(row)!r} was")
        if content_crc(sample) != int(samples.crc_N[row]):
            raise shard_changed(url, f"the content of sample {samples.key(row)!r} is another one")
    return dict(enumerate(read, start=first))
