"""What tasks compare with the images: lists of classes and templates, labels and captions."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tinyclip.schemas.spec import EvaluationTask, RetrievalTask, ZeroShotTask

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_of, is_held_out, matches, text_field
from tinyclip_workers.runtime.user_files import read_file

MAX_LINES_BYTES, MAX_LINES = 4 << 20, 100_000
"""Limits of a file of class names or templates; ImageNet's 21,841 classes have half a megabyte."""
MAX_PROMPTS = 5_000_000
"""Limit of classes times templates."""
MAX_WITHOUT_CLASS = 0.1
"""Limit of the share of labels without a class."""
TASKS = "evaluation.tasks."
"""The beginning of the field of a task's error."""
MAX_DIGITS = 9
"""Limit of the digits of a class's row."""


class ValueReader:
    """Reads of each sample what a task compares: the row of its class, its label, or its captions."""

    def __init__(
        self, task: EvaluationTask, holdout: float, read_captions: Callable[[Sample], list[str]] | None = None
    ) -> None:
        """`read_captions`: for tasks of one language."""
        self._task, self._holdout, self._read_captions = task, holdout, read_captions
        self._classes = ClassRows(class_names(task)) if isinstance(task, ZeroShotTask) else None
        self._without_class: list[str] = []

    def selects(self, sample: Sample) -> bool:
        return is_selected(sample, self._task, self._holdout)

    def read(self, sample: Sample) -> Any:
        """Raises any exception."""
        if isinstance(self._task, RetrievalTask):
            if self._read_captions is not None:
                return self._read_captions(sample)
            return retrieval_captions(sample, self._task.caption_key)
        label = text_field(sample, self._task.label_key)
        if self._classes is None:
            return label
        row = self._classes.row(label)
        if row is None:
            classes = f"the {self._classes.count} classes are 0 to {self._classes.count - 1}"
            self._without_class.append(f"sample {sample['__key__']} has {describe_label(label)}, but {classes}")
            raise UnusableSample(f"{describe_label(label)} is none of {self._classes.count} classes")
        return row

    def expect_classes(self, with_class: int) -> None:
        """Raise DataError if many labels have no class."""
        if is_another_list(len(self._without_class), len(self._without_class) + with_class):
            message = f"{self._without_class[0]}; give the list that the labels were made with"
            raise task_error(self._task, "classes", f"{message} ({len(self._without_class):,} labels have no class)")


def class_names(task: ZeroShotTask) -> list[str]:
    """Return the classes of a task of one language. Raises as `task_lines`."""
    assert not isinstance(task.classes, dict), "a task of one language"
    return task_lines(task.classes or [])


def prompt_templates(task: ZeroShotTask) -> list[str]:
    """Return the templates of a task of one language. Raises as `task_lines`."""
    assert not isinstance(task.templates, dict), "a task of one language"
    return task_lines(task.templates or [])


def task_lines(value: list[str] | str) -> list[str]:
    """Return class names or templates: the list itself, or from a file (path or URI) with one on each line or a JSON list.

    Raises OSError, or ValueError naming the file.
    """
    if not isinstance(value, str):
        return value
    try:
        text = read_file(value, MAX_LINES_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{value} is not UTF-8 text") from error
    lines = _json_lines(value, text) if text.lstrip().startswith("[") else text.splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if len(found) > MAX_LINES:
        raise ValueError(f"{value} has {len(found):,} lines, at most {MAX_LINES:,} are read")
    return found


def _json_lines(address: str, text: str) -> list[str]:
    """Return the texts of a JSON list; numbers are texts too. Raises ValueError."""
    try:
        lines = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{address} starts like a JSON list but is not JSON") from error
    if not all(isinstance(line, str | int | float) for line in lines):
        raise ValueError(f"{address} is a JSON list of more than texts; write one text for each entry")
    try:
        return [str(line).encode().decode() for line in lines]
    except UnicodeEncodeError as error:
        raise ValueError(f"{address} has a text that is not valid Unicode") from error


def is_selected(sample: Sample, task: EvaluationTask, holdout: float) -> bool:
    """Return True if the task's `subset` and `where` select the sample."""
    return (task.subset == "all" or is_held_out(sample["__key__"], holdout)) and matches(sample, task.where)


def fill_template(template: str, name: str) -> str:
    """Insert a class name into a template, for `{}` or CLIP_benchmark's `{c}`."""
    return template.replace("{c}", name).replace("{}", name)


class ClassRows:
    """The rows of a class list. A name of several classes is the first one."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.count = len(classes)
        self._rows = {name: row for row, name in reversed(list(enumerate(classes)))}

    def row(self, label: str) -> int | None:
        """Return a label's row, or None: a number is the row, anything else the name of a class."""
        if label.isdecimal():
            return int(label) if len(label) <= MAX_DIGITS and int(label) < self.count else None
        return self._rows.get(label)


def is_another_list(without_class: int, labels: int) -> bool:
    """Return True if so many labels have no class that they must have been made with another list, rather than be malformed."""
    return without_class > max(1, labels * MAX_WITHOUT_CLASS)


def retrieval_captions(sample: Sample, key: str) -> list[str]:
    """Return all captions of a sample; a text file has one on each line, as in CLIP_benchmark. Raises any exception."""
    return captions_of(sample, key, by_line=not key.startswith("json."))


def describe_label(label: str) -> str:
    """Return a label for messages: a number, or that it is a text, whose content is not repeated."""
    return f"label {label}" if label.isdecimal() and len(label) <= MAX_DIGITS else "a text as its label"


def prompts_problem(classes: Sequence[str], templates: Sequence[str]) -> str:
    """Return why so many classes and templates are refused."""
    count = f"{len(classes):,} classes times {len(templates):,} templates"
    return f"{count} are more than the {MAX_PROMPTS:,} prompts that are encoded; give fewer templates"


def task_error(task: EvaluationTask, field: str, message: str, value: object = None) -> DataError:
    """Return the error of a field of a task."""
    return DataError(message, field=f"{TASKS}{task.name}.{field}", value=value)


def task_pointer(tasks: Sequence[EvaluationTask], error: DataError) -> str | None:
    """Return the JSON pointer into a request with these tasks for the error of one; None for another error."""
    place = error.field.removeprefix(TASKS)
    for index, task in enumerate(tasks):
        if place.startswith(f"{task.name}."):
            return f"/tasks/{index}/{place.rsplit('.', 1)[-1]}"  # there may be a language between
    return None
