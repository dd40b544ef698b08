"""The tokenizer of a job's students: trained on the captions or read from a folder, once, before the first stage."""

import hashlib
import heapq
import logging
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice

from tinyclip.schemas.spec import TokenizerSpec

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.samples import captions_by_language
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.tokenizer_folder import read_tokenizer
from tinyclip_workers.model.tokenizer_training import train_tokenizer
from tinyclip_workers.model.tokenizers import TokenizerError, TokenizerSource
from tinyclip_workers.model.vocabulary_change import check_end_of_text, vocabulary_of
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.dataset import open_index_of

log = logging.getLogger(__name__)

MAX_CAPTIONS = 200_000
"""Different captions of each language that a tokenizer is trained on, chosen by their hash."""
MAX_READ = 5_000_000
"""Pairs whose captions are read."""
FIELD = "tokenizer"


def prepare_tokenizer(run: JobAttempt) -> TokenizerSource | None:
    """Train or read the tokenizer of the students, unless an attempt has done so. Raises DataError."""
    if run.spec.tokenizer is None:
        return None
    if (found := tokenizer_of(run)) is not None:
        return found
    try:
        source = _make(run, run.spec.tokenizer)
        size = len(vocabulary_of(source))
    except TokenizerError as error:
        raise DataError(f"tokenizer: {error}", field=FIELD, value=run.spec.tokenizer.folder) from error
    log.info("the students' tokenizer has %s tokens", f"{size:,}")
    run.keep_tokenizer(source.to_files())
    return source


def tokenizer_of(run: JobAttempt) -> TokenizerSource | None:
    """Return the tokenizer that the job has prepared; None if its spec has none, or before."""
    files = run.tokenizer() if run.spec.tokenizer is not None else None
    return None if files is None else TokenizerSource.from_files(files)


def check_student_tokenizer(student: LoadedModel) -> None:
    """Raises DataError unless a student can be trained with its tokenizer."""
    try:
        check_end_of_text(student.tokenizer, student.layout.vocab_size)
    except TokenizerError as error:
        raise DataError(f"tokenizer: {error}", field=FIELD) from error


def _make(run: JobAttempt, spec: TokenizerSpec) -> TokenizerSource:
    """Raises TokenizerError, DataError."""
    if spec.train is not None:
        return train_tokenizer(balanced_captions(run, open_index_of(run)), spec.train.vocab_size)
    assert spec.folder is not None, "the schema requires one of the two"
    return read_tokenizer(spec.folder)


def balanced_captions(run: JobAttempt, index: DatasetIndex) -> Iterator[str]:
    """Yield different captions of the pairs, of each language as many as of any other: those of smaller ones are repeated."""
    languages = run.spec.data.train.languages
    kept = {language: _Different(MAX_CAPTIONS) for language in languages or [""]}
    for language, caption in islice(_captions(run, index), MAX_READ):
        if language in kept:
            kept[language].add(caption)
    texts = [found for each in kept.values() if (found := each.texts())]
    most = max(map(len, texts), default=0)
    return chain.from_iterable(islice(cycle(each), most) for each in texts)


def _captions(run: JobAttempt, index: DatasetIndex) -> Iterator[tuple[str, str]]:
    """Yield the captions of all pairs with their languages."""
    train, skipped = run.spec.data.train, Skipped()
    default = train.languages[0] if train.languages else ""
    for number, shard in enumerate(index.shards):
        if not shard.samples:
            continue
        rows = index.load_samples(number)
        yield from _joined_captions(rows, default)
        used = {rows.key(row) for row in rows.training_rows.tolist()}
        for sample in read_shards([shard.url], skipped):
            found: dict[str, list[str]] = {}
            if sample["__key__"] in used:
                with skipped.unusable(sample):
                    found = captions_by_language(sample, train.caption_key, default)
            yield from ((language if train.languages else "", text) for language, texts in found.items() for text in texts)


def _joined_captions(rows: ShardSamples, default: str) -> Iterator[tuple[str, str]]:
    for row in rows.training_rows.tolist():
        for text, language in zip(rows.more_captions(row), rows.more_languages(row), strict=True):
            yield language or default, text


class _Different:
    """Different texts, at most some number of them: those with the smallest hashes, which do not depend on the order."""

    def __init__(self, most: int) -> None:
        self._most, self._heap, self._hashes = most, list[tuple[int, str]](), set[int]()

    def add(self, text: str) -> None:
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
