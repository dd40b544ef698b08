"""Counts of the samples of one shard, or of many: everything that the report needs but for what compares samples."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyclip.schemas import JSON

from tinyclip_workers.data.samples import printable

MAX_EXAMPLES = 5
MAX_TEXT = 200
"""Characters that are kept of a text for the report."""
KEPT_TEXTS = 200
"""The most frequent texts that are kept of a shard."""
MERGED_TEXTS = 20_000
"""The most frequent texts that are kept of many shards."""
COUNTED_TEXTS = 100_000
"""Texts that are counted in a shard: beyond, rare ones are forgotten."""
KEPT_REASONS = 20


class Frequent:
    """Counts of texts by which only the frequent ones are remembered; of those that come back after they were forgotten, less."""

    def __init__(self, limit: int, counts: Mapping[str, float] | None = None) -> None:
        self._limit, self.counts = limit, dict(counts or {})

    def add(self, text: str, weight: float) -> None:
        self.counts[text] = self.counts.get(text, 0.0) + weight
        if len(self.counts) >= 2 * self._limit:
            self.counts = dict(self.most(self._limit))

    def most(self, count: int) -> list[tuple[str, float]]:
        """Return the most frequent texts with their counts; of equally frequent ones the first in the alphabet."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:count]


class CaptionLanguage(NamedTuple):
    """The probable languages of one caption."""

    probabilities: dict[str, float]
    """By ISO 639-1 code, of the most probable ones, as if all were equally frequent."""
    uncovered: JSON | None
    """The caption as an example, if the tokenizer does not cover it."""


@dataclass
class Statistics:
    """Counts over samples. `kept` ones are those that `where` selects; but for `excluded`, all others are among these."""

    samples: int = 0
    excluded: int = 0
    usable: int = 0
    captions: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Samples by the code of a finding."""
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    """For some codes, counts of reasons or kinds."""
    examples: dict[str, list[JSON]] = field(default_factory=dict)
    """By code: `{key, shard, detail}`, at most MAX_EXAMPLES."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Captions by their number of characters."""
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    short_sides: Counter[int] = field(default_factory=Counter)
    texts: Frequent = field(default_factory=lambda: Frequent(COUNTED_TEXTS))
    """Captions without differences of case: the expected number of samples in which it is the caption that is drawn."""
    beginnings: Frequent = field(default_factory=lambda: Frequent(COUNTED_TEXTS))
    endings: Frequent = field(default_factory=lambda: Frequent(COUNTED_TEXTS))
    fields: Counter[str] = field(default_factory=Counter)
    """Fields of the first samples of each shard that hold several words."""
    languages: list[CaptionLanguage] = field(default_factory=list)
    """Of a sample of the captions."""
    captions_by_language: Counter[str] = field(default_factory=Counter)
    """Captions in each of the data set's languages, as these are given."""

    @property
    def kept(self) -> int:
        return self.samples - self.excluded

    def count(self, code: str, example: JSON | None = None, reason: str | None = None) -> None:
        """Count a sample with something that is worth a finding."""
        self.counts[code] += 1
        if reason is not None:
            reasons = self.reasons.setdefault(code, Counter())
            reasons[reason if reason in reasons or len(reasons) < KEPT_REASONS else "other reasons"] += 1
        examples = self.examples.setdefault(code, [])
        if example is not None and len(examples) < MAX_EXAMPLES:
            examples.append(example)

    def add(self, other: "Statistics") -> None:
        """Add the counts of the next shard."""
        for name in ("samples", "excluded", "usable", "captions"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("counts", "lengths", "widths", "heights", "short_sides", "fields", "captions_by_language"):
            getattr(self, name).update(getattr(other, name))
        for code, reasons in other.reasons.items():
            self.reasons.setdefault(code, Counter()).update(reasons)
        for code, examples in other.examples.items():
            self.examples[code] = [*self.examples.get(code, []), *examples][:MAX_EXAMPLES]
        for name in ("texts", "beginnings", "endings"):
            for text, weight in getattr(other, name).counts.items():
                getattr(self, name).add(text, weight)
        self.languages += other.languages

    def to_json(self) -> JSON:
        document: JSON = {name: getattr(self, name) for name in ("samples", "excluded", "usable", "captions", "examples")}
        for name in ("counts", "lengths", "widths", "heights", "short_sides", "fields", "captions_by_language"):
            document[name] = dict(sorted(getattr(self, name).items()))
        document["reasons"] = {code: dict(reasons.most_common()) for code, reasons in self.reasons.items()}
        for name in ("texts", "beginnings", "endings"):
            document[name] = getattr(self, name).most(KEPT_TEXTS)
        document["languages"] = self.languages
        return document

    @classmethod
    def of(cls, document: JSON) -> "Statistics":
        """Return what `to_json` made."""
        changes: dict[str, Any] = dict(document)
        for name in ("lengths", "widths", "heights", "short_sides"):
            changes[name] = Counter({int(value): count for value, count in document[name].items()})
        for name in ("counts", "fields", "captions_by_language"):
            changes[name] = Counter(document[name])
        for name in ("texts", "beginnings", "endings"):
            changes[name] = Frequent(MERGED_TEXTS, dict(document[name]))
        changes["reasons"] = {code: Counter(reasons) for code, reasons in document["reasons"].items()}
        changes["languages"] = [CaptionLanguage(*found) for found in document["languages"]]
        return cls(**changes)


def merged() -> Statistics:
    """Return empty statistics to which those of shards are added."""
    return Statistics(texts=Frequent(MERGED_TEXTS), beginnings=Frequent(MERGED_TEXTS), endings=Frequent(MERGED_TEXTS))


def example(key: str, shard: str, detail: str) -> JSON:
    """Return an example of a finding. Keys and details come from shards, so they are made printable and cut."""
    return {"key": printable(key, MAX_TEXT), "shard": shard, "detail": printable(detail, MAX_TEXT)}
