"""Tasks in several languages: one task for each of them, whose result is named TASK.LANGUAGE."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
from tinyclip.schemas.spec import EvaluationTask, RetrievalTask

from tinyclip_workers.data.index.caption_files import Captions, read_entries
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_by_language
from tinyclip_workers.evaluation.labels import task_error


class LanguageTask(RetrievalTask):
    """A retrieval task in one language."""

    language: str
    """One of `languages`, the first of which is that of captions without a language."""


def split_by_language(tasks: Sequence[EvaluationTask]) -> Iterator[EvaluationTask]:
    """Yield tasks of one language each."""
    for task in tasks:
        languages = task.result_languages()
        if not languages:
            yield task
        for language in languages:
            yield _in_language(task, language)


def _in_language(task: EvaluationTask, language: str) -> EvaluationTask:
    name = task.result_name(language)
    if isinstance(task, RetrievalTask):
        return LanguageTask(**{**task.model_dump(), "name": name, "language": language})
    fields = {field: getattr(task, field) for field in ("classes", "templates")}
    own = {field: value[language] for field, value in fields.items() if isinstance(value, dict)}
    return task.model_copy(update={"name": name, **own})


class CaptionFiles:
    """The files of captions that tasks name, each of which is read once into a database in a temporary folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tinyclip-captions-")
        self._files: dict[str, Captions] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        self._folder.cleanup()

    def read_captions(self, sample: Sample, task: LanguageTask, *, by_line: bool) -> list[str]:
        """Return the captions of a sample in the task's language. Raises any exception, also if there is none."""
        try:
            texts = captions_by_language(sample, task.caption_key, task.languages[0], by_line=by_line)
        except UnusableSample:
            if task.captions is None:
                raise
            texts = {}
        joined = self._file(task).take(sample["__key__"].encode("utf-8", "surrogateescape")) if task.captions else None
        for language, more in (joined or {}).items():
            texts.setdefault(language or task.languages[0], []).extend(more)
        if not texts.get(task.language):
            raise UnusableSample(f"it has no caption in {task.language}")
        return texts[task.language]

    def prepare(self, tasks: Sequence[EvaluationTask]) -> None:
        """Read the files of tasks. Raises DataError."""
        for task in tasks:
            if isinstance(task, LanguageTask) and task.captions is not None:
                self._file(task)

    def _file(self, task: LanguageTask) -> Captions:
        assert task.captions is not None
        if task.captions not in self._files:
            file = Captions(Path(self._folder.name) / f"{len(self._files)}.sqlite")
            try:
                for entry in read_entries(task.captions, "captions"):
                    if not isinstance(entry, str):
                        file.add(*entry)
            except (OSError, EOFError, ValueError, pa.ArrowException) as error:
                raise task_error(task, "captions", f"{task.captions} cannot be read: {error}", task.captions) from error
            self._files[task.captions] = file
        return self._files[task.captions]
