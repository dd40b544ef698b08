"""The samples that `where` selects: by values in their JSON, by measures of their image, and by the teacher's agreement."""

from typing import Any

from tinyclip.schemas.datasets import MEASURES, Range, Where

from tinyclip_workers.data.index.rows import SampleRow
from tinyclip_workers.data.samples import Sample, matches


class SampleFilter:
    """The conditions of `where`."""

    def __init__(self, where: Where) -> None:
        self._values: dict[str, Any] = {key: value for key, value in where.items() if not isinstance(value, Range)}
        self._ranges = {key: value for key, value in where.items() if isinstance(value, Range)}

    @property
    def needs_agreement(self) -> bool:
        """True if the teacher must encode every sample."""
        return "agreement" in self._ranges

    def selects(self, sample: Sample) -> bool:
        """Compare the values in a sample's JSON. Raises any exception."""
        return matches(sample, self._values)

    def selects_size(self, row: SampleRow) -> bool:
        """Compare the measures of a sample's image."""
        short, long = sorted((row.width, row.height))
        measures = {"short_side": float(short), "aspect_ratio": long / max(1, short)}
        return all(_within(measures[key], bounds) for key, bounds in self._ranges.items() if key in measures)

    def selects_agreement(self, agreement: float) -> bool:
        return _within(agreement, self._ranges["agreement"])


def _within(value: float, bounds: Range) -> bool:
    return (bounds.min is None or value >= bounds.min) and (bounds.max is None or value <= bounds.max)


assert set(MEASURES) == {"agreement", "short_side", "aspect_ratio"}, "every measure is compared here"
