"""The result of scanning one shard in the artifacts store: its samples, and the part of the report that depends on it alone.

The file `findings/<shard>.parquet` is written last and says what the part was made from, so that a part counts only if it is
complete and its shard has not changed. Shapes: N samples of the shard, C captions of a sample.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tinyclip.artifacts.paths import dataset_findings, dataset_samples
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.index.dataset_index import write_shard_samples
from tinyclip_workers.data.index.rows import ShardRow, Use, from_parquet, to_parquet
from tinyclip_workers.data.index.scanning import ScannedShard
from tinyclip_workers.datasets.images.checks import THUMBNAIL_BYTES
from tinyclip_workers.datasets.statistics import Statistics
from tinyclip_workers.types import Pixels

MARKS = pa.schema([
    ("use", pa.uint8()), ("image", pa.uint64()), ("thumbnail", pa.binary(THUMBNAIL_BYTES)), ("captions", pa.list_(pa.uint64())),
    ("agreement", pa.float32()),
])  # fmt: skip
"""The columns that identify the samples of a shard. Null for excluded and unusable samples, and for images that show nothing."""
SUMMARY = b"summary"
"""The key in the file's metadata of everything else, as JSON."""


@dataclass
class SampleMarks:
    """The hashes that identify one sample; a row of MARKS."""

    use: int = Use.UNUSABLE
    image: int | None = None
    thumbnail: bytes | None = None
    captions: list[int] | None = None
    """64-bit hashes of the captions, without differences of case and spaces."""
    agreement: float | None = None
    """The teacher's similarity of image and captions: the mean over the captions."""


@dataclass
class ShardSummary:
    """Everything about a scanned shard that is no column."""

    shard: ShardRow
    settings: str
    """Digest of the settings that the part depends on."""
    stamp: str
    """Of the shard's file (`ShardFile.stamp`); "": its store reports none."""
    broken: str | None = None
    passing: bool = False
    """True if the reason why it is broken may pass: another attempt reads it again."""
    statistics: Statistics = field(default_factory=Statistics)

    def to_json(self) -> JSON:
        return {**vars(self), "shard": asdict(self.shard), "statistics": self.statistics.to_json()}

    @classmethod
    def of(cls, document: JSON) -> "ShardSummary":
        changes = {"shard": ShardRow(**document["shard"]), "statistics": Statistics.of(document["statistics"])}
        return cls(**{**document, **changes})


class Marks:
    """The columns of a part."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @property
    def hash_N(self) -> NDArray[np.uint64]:
        """Hashes of images; 0 where there is none."""
        hashes_N: NDArray[np.uint64] = self._table.column("image").fill_null(0).to_numpy()
        return hashes_N

    @property
    def has_image_N(self) -> NDArray[np.bool_]:
        """True where there is a hash."""
        has_image_N: NDArray[np.bool_] = self._table.column("image").is_valid().to_numpy()
        return has_image_N

    @property
    def use_N(self) -> NDArray[np.uint8]:
        use_N: NDArray[np.uint8] = self._table.column("use").to_numpy()
        return use_N

    def thumbnails(self, rows: NDArray[Any]) -> Pixels:
        """Return the thumbnails of rows that have an image: (rows, THUMBNAIL_BYTES)."""
        found = self._table.column("thumbnail").take(pa.array(rows)).to_pylist()
        return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(rows), THUMBNAIL_BYTES)

    @property
    def caption_hashes(self) -> NDArray[np.uint64]:
        """The hashes of all captions."""
        hashes: NDArray[np.uint64] = self._table.column("captions").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return hashes

    @property
    def caption_counts_N(self) -> NDArray[np.int64]:
        """The number of captions of each sample; 0 where there is none."""
        lengths = self._table.column("captions").combine_chunks().value_lengths()
        counts_N: NDArray[np.int64] = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return counts_N


def write_part(
    store: ArtifactsStore, folder: str, number: int, scanned: ScannedShard, marks: Sequence[SampleMarks], summary: ShardSummary
) -> None:
    """Write samples and findings of a shard."""
    columns = {name: pa.array([getattr(row, name) for row in marks], MARKS.field(name).type) for name in MARKS.names}
    table = pa.table(columns, schema=MARKS)
    table = table.replace_schema_metadata({SUMMARY: json.dumps(summary.to_json(), allow_nan=False)})
    write_shard_samples(store, folder, number, scanned.samples)
    store.write_bytes(dataset_findings(folder, number), to_parquet(table))


def read_part(store: ArtifactsStore, folder: str, number: int) -> tuple[Marks, ShardSummary] | None:
    """Return the part of a shard; None if there is none, or none that can be read."""
    data = store.read_if_exists(dataset_findings(folder, number))
    if data is None or not store.exists(dataset_samples(folder, number)):
        return None
    try:
        table = from_parquet(data)
        return Marks(table), ShardSummary.of(json.loads(table.schema.metadata[SUMMARY]))
    except (pa.ArrowException, KeyError, TypeError, ValueError):  # of another version of this program
        return None


def has_part(store: ArtifactsStore, folder: str, number: int, url: str, settings: str, stamp: str) -> bool:
    """Return whether a shard with this stamp was scanned with these settings; never without a stamp."""
    part = read_part(store, folder, number)
    if part is None or not stamp or part[1].passing:
        return False
    return (part[1].shard.url, part[1].settings, part[1].stamp) == (url, settings, stamp)
