"""The texts that a version was trained and evaluated with: captions of its data, and prompts and captions of evaluation tasks."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from tinyclip.artifacts.paths import dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import DatasetVersion, JobSpec
from tinyclip.schemas.spec import EvaluationTask, RetrievalTask, TrainData, ZeroShotTask

from tinyclip_workers.data.datacompdr import synthetic_captions
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.caption_files import NO_LANGUAGE, read_entries
from tinyclip_workers.data.index.dataset_index import open_index
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, captions_of
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation.by_language import split_by_language
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.labels import class_names, fill_template, prompt_templates, retrieval_captions


def job_texts(spec: JobSpec) -> Iterator[str]:
    """Yield every text that a job trains or evaluates with, except those of a file that a data set joins. Raises DataError."""
    yield from training_captions(spec.data.train)
    yield from prompts(spec.evaluation.tasks)
    yield from evaluation_captions(spec.evaluation.tasks)


def training_captions(train: TrainData) -> Iterator[str]:
    """Yield the captions in the shards, also of samples that training does not use, and in the file of captions of a spec.

    Those that a data set joins are `joined_captions`. Raises DataError.
    """
    if train.captions is not None and train.dataset is None:
        yield from _captions_in(train.captions, "data.train.captions", train.languages)
    yield from _read(train.patterns, lambda sample: [*captions_of(sample, train.caption_key), *synthetic_captions(sample)])


def joined_captions(store: ArtifactsStore, version: DatasetVersion) -> Iterator[str]:
    """Yield the captions of a data set that are not in its shards. Raises OSError."""
    if version.source.captions is None:
        return
    index = open_index(store, dataset_version(version.name, version.version), version.digest)
    for shard in range(len(index.shards)):
        samples = index.load_samples(shard)
        for row in range(len(samples)):
            yield from samples.more_captions(row)


def prompts(tasks: Iterable[EvaluationTask]) -> Iterator[str]:
    """Yield the texts of classes. Raises OSError or ValueError."""
    for task in map(resolve_task, split_by_language(list(tasks))):
        if isinstance(task, ZeroShotTask):
            for template in prompt_templates(task):
                yield from (fill_template(template, name) for name in class_names(task))


def evaluation_captions(tasks: Iterable[EvaluationTask]) -> Iterator[str]:
    """Yield the captions of the images of retrieval tasks. Raises DataError."""
    for task in map(resolve_task, tasks):
        if isinstance(task, RetrievalTask):
            if task.captions is not None:
                yield from _captions_in(task.captions, f"evaluation.tasks.{task.name}.captions", task.languages)
            yield from _read(task.shards, lambda sample, key=task.caption_key: retrieval_captions(sample, key))  # type: ignore[misc]


def _captions_in(address: str, field: str, languages: Sequence[str]) -> Iterator[str]:
    """Yield the captions of a file in some languages; without any, all. Raises DataError."""
    try:
        for entry in read_entries(address, field):
            if not isinstance(entry, str):
                for language, texts in entry[1].items():
                    yield from texts if not languages or language in (NO_LANGUAGE, *languages) else ()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{address} cannot be read: {error}", field=field, value=address) from error


def _read(shards: str | list[str], captions: Callable[[Sample], list[str]]) -> Iterator[str]:
    skipped = Skipped()
    for sample in read_shards(expand_shards(shards), skipped):
        found: list[str] = []
        with skipped.unusable(sample):  # training skips it as well
            found = captions(sample)
        yield from found
    if skipped.shards:
        raise DataError(f"{skipped.shards} shards cannot be read: {'; '.join(skipped.examples)}", value=shards)
