"""How evenly samples are spread over the values of `distinct_key`."""

import numpy as np
from numpy.typing import NDArray
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.schemas.datasets import DatasetSource, Finding

from tinyclip_workers.data.index.rows import Use, from_parquet
from tinyclip_workers.datasets.report.rules import make_finding, part_of, severity_of
from tinyclip_workers.datasets.scan.merging import Parts

MAX_VALUES = 8_000_000
"""Values that are counted at most; of more, those that are divisible by some number."""
DOMINANT_SHARE = 0.1
FEW_VALUES = 32


def imbalance_findings(parts: Parts, source: DatasetSource, usable: int) -> list[Finding]:
    """Return findings on the values of `distinct_key`; none without one. Raises OSError."""
    if source.distinct_key is None or not usable:
        return []
    divisor = np.uint64(-(-usable // MAX_VALUES))
    without, values = 0, [np.zeros(0, np.uint64)]
    for shard in range(len(parts.urls)):
        value_N = _values(parts, shard)
        without += int((value_N == 0).sum())
        values.append(value_N[(value_N != 0) & (value_N % divisor == 0)])
    counts = np.sort(np.unique(np.concatenate(values), return_counts=True)[1])[::-1]
    found = [_without_value(source.distinct_key, without, usable), *_uneven(source.distinct_key, counts, usable, int(divisor))]
    return [finding for finding in found if finding is not None]


def _values(parts: Parts, shard: int) -> NDArray[np.uint64]:
    """Return the values' hashes of the usable samples of a shard; 0 for none."""
    table = from_parquet(parts.store.read_bytes(dataset_samples(parts.folder, shard)))
    used_N = np.isin(table.column("use").to_numpy(), (Use.TRAINING, Use.HELD_OUT))
    values_N: NDArray[np.uint64] = table.column("distinct").to_numpy()[used_N]
    return values_N


def _without_value(key: str, count: int, usable: int) -> Finding | None:
    if not count:
        return None
    message = f"{part_of(count, usable)} samples have no {key}, so they count as different from all others"
    remedy = f"Correct source.distinct_key if {key} is not the field that you mean."
    return make_finding("missing_distinct_key", severity_of(count / usable, 0.1, 0.9), count, usable, message, remedy)


def _uneven(key: str, counts: NDArray[np.int64], usable: int, divisor: int) -> list[Finding]:
    if not len(counts):
        return []
    largest, values, total = int(counts[0]), len(counts) * divisor, int(counts.sum()) * divisor
    shares = counts / counts.sum()
    effective = round(float(np.exp(-(shares * np.log(shares)).sum()))) * divisor
    tenth = max(1, len(counts) // 10)
    message = f"{key} has {values:,} values, as uneven as {effective:,} equally frequent ones; the most frequent one is that of "
    message += f"{part_of(largest, total)} samples, and the most frequent tenth of {counts[:tenth].sum() / counts.sum():.0%}"
    if values < FEW_VALUES:
        remedy = "Batches cannot avoid repeated values, of which there are so few; use a field with more of them."
        return [make_finding("imbalance", "warning", largest, usable, message, remedy)]
    if largest / total < DOMINANT_SHARE and effective > values / 4:
        return []
    remedy = "Remove samples of the frequent values, or list the shards of the others twice: training sees frequent values most."
    severity = severity_of(largest / total, DOMINANT_SHARE, 2.0)
    return [make_finding("imbalance", severity, largest, usable, message, remedy, estimated=divisor > 1)]
