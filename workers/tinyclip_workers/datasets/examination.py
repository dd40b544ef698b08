"""The examination of a shard's samples while it is scanned: `where`, images, captions."""

import hashlib
import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyclip.schemas.datasets import Where
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.index.rows import SampleRow, Use
from tinyclip_workers.data.samples import Sample, UnusableSample, field_of, image_bytes, sample_errors, sample_json
from tinyclip_workers.datasets import caption_checks as checks
from tinyclip_workers.datasets.filters import SampleFilter
from tinyclip_workers.datasets.image_checks import examine_image
from tinyclip_workers.datasets.languages import CaptionLanguage, is_uncovered, probable_languages
from tinyclip_workers.datasets.parts import SampleMarks
from tinyclip_workers.datasets.statistics import Statistics, example

FORMAT = 1
"""Version of the examination; increment it when what it writes changes."""
SAMPLED_FIELDS = 20
"""Samples of a shard whose fields are looked at."""
MIN_WORDS = 2
"""Words of a field that may hold captions."""


@dataclass(frozen=True)
class ExaminationSettings:
    """Everything that the examination depends on, but for the shard."""

    train: TrainData
    """Keys and holdout; its shards have no effect."""
    where: Where = field(default_factory=dict)
    context_length: int = checks.DEFAULT_CONTEXT
    language_captions: int = 1000
    """Captions of each shard whose language is determined."""
    teacher: str = ""
    """Digest of the teacher that encodes every sample; "" if none does."""

    def digest(self) -> str:
        """Return a digest of the settings and of the version of the examination."""
        where = {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in self.where.items()}
        train = self.train.model_dump(mode="json", include={"image_key", "caption_key", "distinct_key", "holdout"})
        document = [FORMAT, train, where, self.context_length, self.language_captions, self.teacher]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class ShardExaminer:
    """Examines the samples of one shard; an `Examiner`."""

    def __init__(self, url: str, settings: ExaminationSettings) -> None:
        self._url, self._train, self._filter = url, settings.train, SampleFilter(settings.where)
        self._is_too_long: Callable[[str], bool] = checks.length_check(settings.context_length)
        self._languages = _CaptionSample(settings.language_captions)
        self._image_failed = False
        self.statistics = Statistics()
        self.marks: list[SampleMarks] = []
        """A row for each sample that has passed."""
        self._next = SampleMarks()

    def selects(self, sample: Sample) -> bool:
        return self._filter.selects(sample)

    def examine(self, sample: Sample, row: SampleRow, captions: list[str]) -> None:
        """Raises UnusableSample, or another exception for a malformed sample."""
        if not self._filter.selects_size(row):
            row.use = Use.EXCLUDED
            return
        self._image_failed = True
        image = examine_image(image_bytes(sample, self._train.image_key))
        self._image_failed = False
        texts = [checks.normalized(caption) for caption in captions]
        self._next.captions = [checks.text_hash(text) for text in dict.fromkeys(texts)]
        if image.tone is None:
            self._next.image, self._next.thumbnail = image.hash, image.thumbnail
        else:
            code = "black_images" if image.tone == "black" else "blank_images"
            self._count(code, sample, f"{row.width}x{row.height} pixels, {image.tone}", reason=image.tone)
        self._count_size(row)
        self._count_captions(sample, captions, texts)

    def passed(self, sample: Sample, row: SampleRow) -> None:
        statistics = self.statistics
        statistics.samples += 1
        statistics.excluded += row.use == Use.EXCLUDED
        statistics.usable += row.use in (Use.TRAINING, Use.HELD_OUT)
        if row.problem is not None:
            self._count_problem(sample, row)
        if statistics.samples <= SAMPLED_FIELDS:
            statistics.fields.update(_fields_of_words(sample))
        self.marks.append(self._next if row.use in (Use.TRAINING, Use.HELD_OUT) else SampleMarks())
        self.marks[-1].use = row.use
        self._next, self._image_failed = SampleMarks(), False

    def finish(self) -> None:
        """Find the probable languages of the sample of captions."""
        for key, text in self._languages.texts():
            uncovered = example(key, self._url, text) if is_uncovered(text) else None
            self.statistics.languages.append(CaptionLanguage(probable_languages(text), uncovered))

    def _count(self, code: str, sample: Sample, detail: str, reason: str | None = None) -> None:
        self.statistics.count(code, example(sample["__key__"], self._url, detail), reason)

    def _count_size(self, row: SampleRow) -> None:
        statistics = self.statistics
        statistics.widths[row.width] += 1
        statistics.heights[row.height] += 1
        statistics.short_sides[min(row.width, row.height)] += 1

    def _count_captions(self, sample: Sample, captions: list[str], texts: list[str]) -> None:
        statistics, weight = self.statistics, 1 / len(captions)
        statistics.captions += len(captions)
        for caption, text in zip(captions, texts, strict=True):
            statistics.lengths[len(caption)] += 1
            statistics.texts.add(text[: checks.MAX_NO_TEXT], weight)
            if (ends := checks.affixes(text)) is not None:
                statistics.beginnings.add(ends[0], weight)
                statistics.endings.add(ends[1], weight)
        kinds = [checks.no_text(caption) for caption in captions]
        if all(kinds):
            self._count("no_text_captions", sample, captions[0], reason=str(kinds[0]))
        for code, is_found in self._caption_checks():
            if (found := next((caption for caption in captions if is_found(caption)), None)) is not None:
                self._count(code, sample, found)
        if all(" " not in text for text in texts):
            statistics.count("single_word_captions")
        self._languages.add(sample["__key__"], captions)

    def _caption_checks(self) -> tuple[tuple[str, Callable[[str], bool]], ...]:
        return (
            ("url_captions", checks.has_url), ("html_captions", checks.has_html), ("cut_captions", checks.is_cut),
            ("truncated_captions", self._is_too_long),
        )  # fmt: skip

    def _count_problem(self, sample: Sample, row: SampleRow) -> None:
        assert row.problem is not None, "the caller checks it"
        has_image = any(key in sample for key in self._train.image_key)
        if not has_image:
            code = "missing_images"
        elif self._image_failed or row.width == 0:
            code = "unreadable_images"
        else:
            code = _caption_problem(sample, self._train.caption_key)
        self._count(code, sample, row.problem, reason=_kind_of_problem(row.problem))


def _caption_problem(sample: Sample, key: str) -> str:
    """Return the code of a sample whose caption cannot be used."""
    if key.split(".")[0] not in sample and key.split(".")[0] not in sample["__defects__"]:
        return "missing_captions"
    try:
        with sample_errors():
            value = field_of(sample, key)
            values: list[Any] = value if isinstance(value, list) else [value]
            if all(isinstance(each, str) and not each.strip() for each in values):
                return "empty_captions"
    except UnusableSample:
        pass
    return "unreadable_captions"


def _kind_of_problem(problem: str) -> str:
    """Return a problem without numbers and details, which differ from sample to sample."""
    words = problem.replace("not a readable image: ", "").split(" (")[0].split("; ")[0]
    return "".join("#" if character.isdigit() else character for character in words)[:80]


def _fields_of_words(sample: Sample) -> list[str]:
    """Return the fields of a sample that could be captions, by their spec name."""
    found = []
    try:
        with sample_errors():
            document = sample_json(sample)
    except UnusableSample:
        document = {}
    names = [name for name in ("txt", "text", "caption") if name in sample] + [f"json.{field}" for field in document]
    for name in names:
        try:
            with sample_errors():
                value = field_of(sample, name)
                first = value[0] if isinstance(value, list) and value else value
                if isinstance(first, str) and checks.no_text(first) is None and len(first.split()) >= MIN_WORDS:
                    found.append(name[: checks.MAX_NO_TEXT])
        except UnusableSample:
            continue
    return found


class _CaptionSample:
    """Captions of some samples, chosen by a hash of their key, one of each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, str, str]] = []

    def add(self, key: str, captions: list[str]) -> None:
        rank = checks.text_hash(key.encode("utf-8", "surrogatepass").hex())
        entry = (-rank, key, captions[rank % len(captions)])
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def texts(self) -> list[tuple[str, str]]:
        """Return keys and captions."""
        return [(key, text) for _, key, text in sorted(self._heap, reverse=True)]
