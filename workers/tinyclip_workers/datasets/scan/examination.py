"""The examination of a shard's samples while it is scanned: `where`, images, captions."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinyclip.schemas.datasets import Where
from tinyclip.schemas.spec import TeacherSpec, TrainData

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.index.rows import SampleRow, Use
from tinyclip_workers.data.samples import (
    Sample,
    UnusableSample,
    captions_by_language,
    field_of,
    image_bytes,
    sample_errors,
    sample_json,
)
from tinyclip_workers.datasets.captions import checks
from tinyclip_workers.datasets.captions.counts import CaptionCounter
from tinyclip_workers.datasets.images.checks import Tone, examine_image
from tinyclip_workers.datasets.scan.filters import SampleFilter
from tinyclip_workers.datasets.scan.parts import SampleMarks
from tinyclip_workers.datasets.statistics import Statistics, example
from tinyclip_workers.types import Pixels

if TYPE_CHECKING:
    from tinyclip_workers.datasets.teacher import Teacher

FORMAT = 2
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
    teacher: TeacherSpec | None = None
    """The teacher that encodes every sample; None if `where` does not bound its agreement."""
    teacher_digest: str = ""
    """Of its weights."""

    def digest(self) -> str:
        """Return a digest of the settings and of the version of the examination."""
        where = {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in self.where.items()}
        owned = {"image_key", "caption_key", "languages", "distinct_key", "holdout"}
        train = self.train.model_dump(mode="json", include=owned)
        document = [FORMAT, train, where, self.context_length, self.language_captions, self.teacher_digest]
        if self.teacher is not None and self.teacher.language is not None:
            document.append(self.teacher.language)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@dataclass
class _Looked:
    """A sample that was looked at."""

    sample: Sample
    """Without its files."""
    row: SampleRow
    marks: SampleMarks
    tone: Tone | None
    captions: list[str]
    languages: dict[str, int]
    """Captions in each of the data set's languages."""
    taught: list[str]
    """Captions that the teacher reads."""
    square: Pixels | None
    """For the teacher."""


class ShardExaminer:
    """Examines the samples of one shard; an `Examiner`."""

    def __init__(self, url: str, settings: ExaminationSettings) -> None:
        """Raises TeacherError."""
        self._url, self._train, self._filter = url, settings.train, SampleFilter(settings.where)
        self._teacher = _load_teacher(settings.teacher) if settings.teacher is not None else None
        self._language = settings.teacher.language if settings.teacher is not None else None
        self._image_failed = False
        self._looked: _Looked | None = None
        self._waiting: list[_Looked] = []
        """Samples for the next batch of the teacher."""
        self.statistics = Statistics()
        self._captions = CaptionCounter(url, self.statistics, settings.context_length, settings.language_captions)
        self.marks: list[SampleMarks] = []
        """A row for each sample that has passed."""

    def selects(self, sample: Sample) -> bool:
        return self._filter.selects(sample)

    def examine(self, sample: Sample, row: SampleRow, captions: list[str]) -> None:
        """Raises UnusableSample, or another exception for a malformed sample."""
        if not self._filter.selects_size(row):
            row.use = Use.EXCLUDED
            return
        self._image_failed = True
        data = image_bytes(sample, self._train.image_key)
        image = examine_image(data)
        square = None if self._teacher is None else decode_square(data, self._teacher.image_size)
        self._image_failed = False
        marks = SampleMarks(row.use)
        if image.tone is None:
            marks.image, marks.thumbnail = image.hash, image.thumbnail
        marks.captions = [checks.text_hash(text) for text in dict.fromkeys(map(checks.normalized, captions))]
        named: Sample = {"__key__": sample["__key__"]}
        texts = self._texts(sample)
        languages = {language: len(found) for language, found in texts.items() if language in self._train.languages}
        taught = captions if self._language is None else texts.get(self._language, captions)
        self._looked = _Looked(named, row, marks, image.tone, captions, languages, taught, square)

    def _texts(self, sample: Sample) -> dict[str, list[str]]:
        """Return the captions by language, if languages are distinguished."""
        languages = self._train.languages
        return captions_by_language(sample, self._train.caption_key, languages[0]) if languages else {}

    def passed(self, sample: Sample, row: SampleRow) -> None:
        self.statistics.samples += 1
        if self.statistics.samples <= SAMPLED_FIELDS:
            self.statistics.fields.update(_fields_of_words(sample))
        looked, self._looked = self._looked, None
        self.marks.append(looked.marks if looked is not None else SampleMarks(row.use))
        if row.problem is not None:
            self._count_problem(sample, row)
        elif looked is None:
            self.statistics.excluded += 1
        elif looked.square is None:
            self._keep(looked)
        else:
            self._waiting.append(looked)
            if self._teacher is not None and len(self._waiting) == self._teacher.batch:
                self._measure()
        self._image_failed = False

    def finish(self) -> None:
        """Measure the last samples, and find the probable languages of the sample of captions."""
        if self._waiting:
            self._measure()
        self._captions.finish()

    def _measure(self) -> None:
        """Let the teacher compare images and captions, and exclude those samples whose agreement is out of bounds."""
        assert self._teacher is not None, "only with one do samples wait"
        waiting, self._waiting = self._waiting, []
        squares = [looked.square for looked in waiting if looked.square is not None]
        agreements = self._teacher.agreements(squares, [looked.taught for looked in waiting])
        for looked, agreement in zip(waiting, agreements.tolist(), strict=True):
            looked.square = None
            if self._filter.selects_agreement(agreement):
                looked.marks.agreement = agreement
                self._keep(looked)
            else:
                looked.row.use = looked.marks.use = Use.EXCLUDED
                looked.marks.image = looked.marks.thumbnail = looked.marks.captions = None
                self.statistics.excluded += 1

    def _keep(self, looked: _Looked) -> None:
        """Count a usable sample."""
        self.statistics.usable += 1
        if looked.tone is not None:
            code = "black_images" if looked.tone == "black" else "blank_images"
            detail = f"{looked.row.width}x{looked.row.height} pixels, {looked.tone}"
            self._count(code, looked.sample, detail, reason=looked.tone)
        self._count_size(looked.row)
        self.statistics.captions_by_language.update(looked.languages)
        self._captions.add(looked.sample["__key__"], looked.captions)

    def _count(self, code: str, sample: Sample, detail: str, reason: str | None = None) -> None:
        self.statistics.count(code, example(sample["__key__"], self._url, detail), reason)

    def _count_size(self, row: SampleRow) -> None:
        statistics = self.statistics
        statistics.widths[row.width] += 1
        statistics.heights[row.height] += 1
        statistics.short_sides[min(row.width, row.height)] += 1

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


def _load_teacher(spec: TeacherSpec) -> "Teacher":
    """Raises TeacherError."""
    from tinyclip_workers.datasets.teacher import teacher_of  # takes seconds, and most shards are scanned without one

    return teacher_of(spec)


def _caption_problem(sample: Sample, key: str) -> str:
    """Return the code of a sample whose caption cannot be used."""
    if key.split(".")[0] not in sample and key.split(".")[0] not in sample["__defects__"]:
        return "missing_captions"
    try:
        with sample_errors():
            value = field_of(sample, key)
    except UnusableSample:
        return "unreadable_captions"
    values: list[Any] = value if isinstance(value, list) else [value]
    is_empty = all(isinstance(each, str) and not each.strip() for each in values)
    return "empty_captions" if is_empty else "unreadable_captions"


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
