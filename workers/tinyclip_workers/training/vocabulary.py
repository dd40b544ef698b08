"""The tokenizer of a job's students: trained on the captions or read from a folder, once, before the first stage.

Without one in the spec, students that inherit the teacher's token embedding have its tokenizer, and all others CLIP's.
"""

import hashlib
import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import TrainData
from tokenizers import Tokenizer as FastTokenizer

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.samples import captions_by_language
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.model.files.folders import LoadedModel, ModelSource
from tinyclip_workers.model.tokenizers import BoundedTokenizer, Tokenizer, TokenizerError, TokenizerSource, make_tokenizer
from tinyclip_workers.model.vocabularies.alignment import Weighted, align
from tinyclip_workers.model.vocabularies.tokenizer_folder import read_tokenizer
from tinyclip_workers.model.vocabularies.tokenizer_training import train_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary_change import (
    Origins,
    check_end_of_text,
    find_origins,
    origins_from_json,
    origins_to_json,
    plain_tokens,
    vocabulary_of,
)
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.dataset import open_index_of

log = logging.getLogger(__name__)

MAX_CAPTIONS, MAX_TRANSLATIONS = 200_000, 100_000
"""Different captions of each language that a tokenizer is trained on, and of pairs with their translations; chosen by hash."""
MAX_READ = 2_000_000
"""Samples whose captions are read."""
FIELD = "tokenizer"
ORIGINS = "origins.json"
"""The teacher's tokens that each token starts as, beside the files of the tokenizer."""
SEPARATOR = "\x00"


@dataclass(frozen=True)
class StudentTokenizer:
    """The tokenizer that a job gives its students."""

    source: TokenizerSource
    origins: Origins | None
    """None without a teacher, and for the teacher's tokenizer."""
    is_own: bool = True
    """False for the teacher's tokenizer."""

    @property
    def vocab_size(self) -> int | None:
        """The size of another vocabulary than the teacher's."""
        return len(vocabulary_of(self.source)) if self.is_own else None


def prepare_tokenizer(run: JobAttempt, teacher: ModelSource | None) -> StudentTokenizer | None:
    """Train or read the tokenizer of the students, unless an attempt has done so; None for CLIP's own. Raises DataError.

    `teacher`: the model of `inherit_from` or the first teacher, from whose tokens those of the students start.
    """
    if (found := tokenizer_of(run)) is not None:
        return found
    if run.spec.tokenizer is None:
        if teacher is None or teacher.tokenizer is None or not run.spec.inherits_from_teacher:
            return None
        run.keep_tokenizer(teacher.tokenizer.to_files())
        return StudentTokenizer(teacher.tokenizer, None, is_own=False)
    try:
        made = _make(run, teacher)
    except TokenizerError as error:
        raise DataError(f"tokenizer: {error}", field=FIELD, value=run.spec.tokenizer.folder) from error
    log.info("the students' tokenizer has %s tokens", f"{made.vocab_size:,}")
    origins = {} if made.origins is None else {ORIGINS: origins_to_json(made.origins)}
    run.keep_tokenizer({**made.source.to_files(), **origins})
    return made


def tokenizer_of(run: JobAttempt) -> StudentTokenizer | None:
    """Return the tokenizer that the job has prepared; None for CLIP's own, or before."""
    own = run.spec.tokenizer is not None
    files = run.tokenizer() if own or run.spec.inherits_from_teacher else None
    source = None if files is None else TokenizerSource.from_files(files)
    if files is None or source is None:
        return None
    return StudentTokenizer(source, origins_from_json(files[ORIGINS]) if ORIGINS in files else None, is_own=own)


def check_student_tokenizer(student: LoadedModel) -> None:
    """Raises DataError unless a student can be trained with its tokenizer."""
    try:
        check_end_of_text(student.tokenizer, student.layout.vocab_size)
    except TokenizerError as error:
        raise DataError(f"tokenizer: {error}", field=FIELD) from error


def _make(run: JobAttempt, teacher: ModelSource | None) -> StudentTokenizer:
    """Raises TokenizerError, DataError."""
    spec, parent = run.spec, None if teacher is None else make_tokenizer(teacher.layout, teacher.tokenizer)
    assert spec.tokenizer is not None, "the caller checks it"
    captions = read_captions(spec, open_index_of(run))
    if spec.tokenizer.train is not None:
        kept = captions.teacher_language if isinstance(parent, BoundedTokenizer) else None
        source = train_tokenizer(captions.by_language, spec.tokenizer.train.vocab_size, kept)
    else:
        assert spec.tokenizer.folder is not None, "the schema requires one of the two"
        source = read_tokenizer(spec.tokenizer.folder)
    if parent is None:
        return StudentTokenizer(source, None)
    aligned = _align(source, parent, captions.translations)
    return StudentTokenizer(source, find_origins(vocabulary_of(source), parent, aligned))


def _align(source: TokenizerSource, parent: Tokenizer, translations: Sequence[tuple[str, str]]) -> dict[int, Weighted]:
    """Return the teacher's tokens that the student's stand for in translated captions."""
    own, clean = FastTokenizer.from_str(source.files["tokenizer.json"].decode()), BoundedTokenizer().clean_fn
    encoded = own.encode_batch([clean(text) for text, _ in translations], add_special_tokens=False)
    return align([(each.ids, plain_tokens(parent, theirs)) for each, (_, theirs) in zip(encoded, translations, strict=True)])


@dataclass
class Captions:
    """Different captions of the pairs, for a tokenizer."""

    teacher_language: str
    """The language that the first teacher reads; without one, the first of the spec's."""
    by_language: Mapping[str, Sequence[str]] = field(default_factory=dict)
    translations: Sequence[tuple[str, str]] = ()
    """Captions in other languages, each with the one that the teacher reads instead."""


def read_captions(spec: JobSpec, index: DatasetIndex) -> Captions:
    """Read the captions of the training pairs."""
    train, teacher = spec.data.train, spec.first_teacher
    language = (teacher.language if teacher is not None else None) or _default(train)
    by_language = {each: _Different(MAX_CAPTIONS) for each in train.languages or [_default(train)]}
    translations = {each: _Different(MAX_TRANSLATIONS) for each in by_language if each != language}
    for texts in islice(_texts(train, index), MAX_READ):
        for each, captions in texts.items():
            if each in by_language:
                by_language[each].add(captions)
            if each in translations and len(captions) == len(texts.get(language, ())):
                translations[each].add([own + SEPARATOR + theirs for own, theirs in zip(captions, texts[language], strict=True)])
    pairs = [text.partition(SEPARATOR) for each in translations.values() for text in each.texts()]
    found = {each: texts.texts() for each, texts in by_language.items()}
    return Captions(language, found, [(own, theirs) for own, _, theirs in pairs])


def _default(train: TrainData) -> str:
    return train.languages[0] if train.languages else ""


def _texts(train: TrainData, index: DatasetIndex) -> Iterator[Mapping[str, list[str]]]:
    """Yield the captions of each pair by language."""
    skipped = Skipped()
    for number, shard in enumerate(index.shards):
        rows = index.load_samples(number) if shard.samples else None
        numbers = {} if rows is None else {rows.key(row): row for row in rows.training_rows.tolist()}
        for sample in read_shards([shard.url], skipped) if rows is not None else ():
            row, found = numbers.get(sample["__key__"]), dict[str, list[str]]()
            if row is None or rows is None:
                continue
            with skipped.unusable(sample):
                found = captions_by_language(sample, train.caption_key, _default(train))
            for text, language in zip(rows.more_captions(row), rows.more_languages(row), strict=True):
                found.setdefault(language or _default(train), []).append(text)
            yield found if train.languages else {"": [text for texts in found.values() for text in texts]}


class _Different:
    """Different texts, at most some number of them: those with the smallest hashes, which do not depend on the order."""

    def __init__(self, most: int) -> None:
        self._most, self._heap, self._hashes = most, list[tuple[int, str]](), set[int]()

    def add(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._add(text)

    def _add(self, text: str) -> None:
        rank = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        if rank in self._hashes:
            return
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (-rank, text))
        elif -rank > self._heap[0][0]:
            self._hashes.discard(-heapq.heapreplace(self._heap, (-rank, text))[0])
        else:
            return
        self._hashes.add(rank)

    def texts(self) -> Sequence[str]:
        return [text for _, text in sorted(self._heap)]
