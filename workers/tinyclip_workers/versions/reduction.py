"""Reduce the vocabulary of a version to the tokens of the texts that it was trained and evaluated with.

The captions of evaluation tasks are kept too, so that a version's evaluation is that of its reduced model. The report has the
share of them that training data alone would have covered: the share to expect of new texts like them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from safetensors.torch import load, save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import DatasetVersion, EmbeddingType, JobSpec, VocabularyReport
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import EvaluationTask

from tinyclip_workers.model.tokenizers import TokenizerSource
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reducible_layout, tokens_of
from tinyclip_workers.runtime.attempt import FinishedStudent
from tinyclip_workers.versions.texts import evaluation_captions, joined_captions, prompts, training_captions

BYTES = {EmbeddingType.FP32: 4, EmbeddingType.FP16: 2, EmbeddingType.INT8: 1}


def reduced_vocabulary(
    store: ArtifactsStore,
    spec: JobSpec,
    dataset: DatasetVersion | None,
    layout: Layout,
    *,
    tasks: Sequence[EvaluationTask] = (),
    embedding: EmbeddingType = EmbeddingType.FP32,
) -> tuple[Vocabulary, VocabularyReport]:
    """Return the vocabulary of a version's texts. `spec` has the shards of its data set, `tasks` are further ones.

    Raises DataError, OSError or ValueError for texts that cannot be read.
    """
    tasks, context_length = [*spec.evaluation.tasks, *tasks], layout.context_length
    joined = joined_captions(store, dataset) if dataset is not None else ()
    counted = _Counted(chain(training_captions(spec.data.train), joined, prompts(tasks)))
    used = tokens_of(counted, context_length)
    evaluated = {text: tokens_of([text], context_length) for text in set(evaluation_captions(tasks))}
    vocabulary = Vocabulary.of_tokens(used.union(*evaluated.values()))
    exact = sum(tokens <= used for tokens in evaluated.values())
    return vocabulary, VocabularyReport(
        tokens=len(vocabulary), of=layout.vocab_size, texts=counted.texts, evaluation_texts=len(evaluated),
        bytes_saved=(layout.vocab_size - len(vocabulary)) * layout.text.width * BYTES[embedding],
        exact_share=exact / len(evaluated) if evaluated else None,
    )  # fmt: skip


def reduce_student(
    store: ArtifactsStore, spec: JobSpec, dataset: DatasetVersion | None, student: FinishedStudent
) -> tuple[FinishedStudent, VocabularyReport]:
    """Return a finished student with a reduced vocabulary. Raises as `reduced_vocabulary`, and NotReducible."""
    whole = reducible_layout(student.layout, TokenizerSource.from_files(student.tokenizer))
    vocabulary, report = reduced_vocabulary(store, spec, dataset, whole)
    layout, state = vocabulary.reduce(whole, load(student.weights))
    return replace(student, layout=layout, weights=save(state), tokenizer=vocabulary.tokenizer().to_files()), report


class _Counted:
    """Texts that are counted while they are read."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.texts = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.texts += 1
            yield text
