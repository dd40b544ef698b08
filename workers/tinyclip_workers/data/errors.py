"""Data that cannot be used: errors that name the field of the spec, and the counts of skipped samples and shards."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tinyclip_workers.data.samples import Sample, UnusableSample, printable, sample_errors

log = logging.getLogger(__name__)

MAX_EXAMPLES, MAX_ERROR = 5, 5000


class DataError(ValueError):
    """Data that cannot be used: `field` of the spec, its `value`, and a message with what to do."""

    def __init__(self, message: str, *, field: str = "data.train.shards", value: Any = None) -> None:
        super().__init__(printable(message, MAX_ERROR))
        self.field, self.value = field, printable(value) if isinstance(value, str) else value


@dataclass
class Skipped:
    """Counts of samples and shards that could not be used, with the first few as examples."""

    samples: int = 0
    shards: int = 0
    examples: list[str] = field(default_factory=list)

    @classmethod
    def sum(cls, counts: "Iterable[Skipped]") -> "Skipped":
        """Add the counts of several processes."""
        found = list(counts)
        examples = [example for each in found for example in each.examples][:MAX_EXAMPLES]
        return cls(sum(each.samples for each in found), sum(each.shards for each in found), examples)

    @contextmanager
    def unusable(self, sample: Sample) -> Iterator[None]:
        """Count the sample and end the block if it raises anything but MemoryError; see `sample_errors`."""
        try:
            with sample_errors():
                yield
        except UnusableSample as error:
            self.add_sample(sample["__key__"], error)

    def add_sample(self, key: str, reason: object) -> None:
        self.samples += 1
        self._add_example(f"sample {key}: {reason}")

    def add_shard(self, url: str, reason: object) -> None:
        self.shards += 1
        self._add_example(f"shard {url}: {reason}")

    def _add_example(self, text: str) -> None:
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(printable(text))
            log.warning("skipped %s", self.examples[-1])
