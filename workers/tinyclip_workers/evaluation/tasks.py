"""Run evaluation tasks: zero-shot classification, retrieval and linear probes, of several models on the same images."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask
from torch import Tensor

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_of, is_held_out, matches, text_field
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation import metrics
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.embedding import EmbeddedImages, embed_images, embed_texts, evaluation_mode
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.runtime.user_files import read_file

ModelScores = dict[str, dict[str, Any]]
"""Metrics by the name of the model."""

OnSample = Callable[[Sample], None]

MAX_LINES_BYTES, MAX_LINES = 4 << 20, 100_000
"""Limits of a file of class names or templates; ImageNet's 21,841 classes have half a megabyte."""
MAX_PROMPTS = 5_000_000
"""Limit of classes times templates."""
MAX_WITHOUT_CLASS = 0.1
"""Limit of the share of labels without a class."""
MAX_DIGITS = 9
"""Limit of the digits of a class's row."""


def evaluate_tasks(
    models: Mapping[str, LoadedModel],
    tasks: Sequence[EvaluationTask],
    *,
    holdout: float = 0.0,
    device: torch.device | str = "cpu",
    on_sample: OnSample = lambda sample: None,
) -> dict[str, ModelScores]:
    """Return the scores of every model in every task, as {task: {name: {metric: value}}}.

    Each image is decoded once and encoded by all models; tasks with the same shards share one pass over them.
    Beside the metrics: the counts `samples`, `skipped` and `skipped_shards`, and `ms_per_image`: the image tower alone, in fp32
    on this machine, the median over the batches of 64.
    `holdout` is the spec's `data.train.holdout`. `on_sample` is called with every sample that is read, for progress.
    Models are in evaluation mode meanwhile; their mode is restored afterwards.
    Raises DataError if nothing can be evaluated or a label has no class.
    """
    scores: dict[str, ModelScores] = {}
    with evaluation_mode(models.values(), torch.device(device)):
        for group in _group_by_shards([resolve_task(task) for task in tasks]):
            for task, data, skipped in _embed(models, group, holdout, on_sample):
                scores_of_task = _score(models, task, data, holdout, on_sample)
                counts = {"samples": len(data.keys), "skipped": skipped.samples, "skipped_shards": skipped.shards}
                scores[task.name] = {
                    name: {**scores_of_task[name], **counts, "ms_per_image": round(data.ms_per_image[name], 4)} for name in models
                }
    return {task.name: scores[task.name] for task in tasks}


def shards_to_read(tasks: Sequence[EvaluationTask]) -> list[str]:
    """Return the shards of all passes that `evaluate_tasks` makes over the samples; for progress. Raises DataError."""
    resolved = [resolve_task(task) for task in tasks]
    read = [group[0] for group in _group_by_shards(resolved)]
    probes = [task for task in resolved if isinstance(task, LinearProbeTask)]
    read += [task.model_copy(update={"shards": task.train_shards or []}) for task in probes]
    return [url for task in read for url in _shards(task)]


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


def _shards(task: EvaluationTask) -> list[str]:
    return expand_shards(task.shards, f"evaluation.tasks.{task.name}.shards")


def prompts_problem(classes: Sequence[str], templates: Sequence[str]) -> str:
    """Return why so many classes and templates are refused."""
    count = f"{len(classes):,} classes times {len(templates):,} templates"
    return f"{count} are more than the {MAX_PROMPTS:,} prompts that are encoded; give fewer templates"


def _group_by_shards(tasks: Sequence[EvaluationTask]) -> list[list[EvaluationTask]]:
    groups: dict[tuple[object, ...], list[EvaluationTask]] = {}
    for task in tasks:
        groups.setdefault((tuple(_shards(task)), tuple(task.image_key)), []).append(task)
    return list(groups.values())


def _score(
    models: Mapping[str, LoadedModel], task: EvaluationTask, data: EmbeddedImages, holdout: float, on_sample: OnSample
) -> ModelScores:
    if isinstance(task, ZeroShotTask):
        return _zero_shot(models, task, data)
    if isinstance(task, RetrievalTask):
        return _retrieval(models, data)
    return _linear_probe(models, task, data, holdout, on_sample)


def _zero_shot(models: Mapping[str, LoadedModel], task: ZeroShotTask, data: EmbeddedImages) -> ModelScores:
    assert task.classes is not None, "a resolved task has classes"
    assert task.templates is not None, "a resolved task has templates"
    classes, templates, labels_N = task_lines(task.classes), task_lines(task.templates), torch.tensor(data.values)
    if len(classes) * len(templates) > MAX_PROMPTS:
        raise _error(task, "templates", f"task {task.name}: {prompts_problem(classes, templates)}", task.templates)
    prompts = [fill_template(template, name) for template in templates for name in classes]
    scores: ModelScores = {}
    for name, loaded in models.items():
        texts_TCE = embed_texts(loaded, prompts).view(len(templates), len(classes), -1)
        scores[name] = _classification_scores(data.images_NE[name] @ metrics.class_embeddings(texts_TCE).T, labels_N, classes)
    return scores


def _classification_scores(scores_NC: Tensor, labels_N: Tensor, classes: list[str]) -> dict[str, Any]:
    worst = metrics.worst_classes(scores_NC, labels_N, classes)
    return {**metrics.classification(scores_NC, labels_N), "worst_classes": worst}


def _retrieval(models: Mapping[str, LoadedModel], data: EmbeddedImages) -> ModelScores:
    """A caption of several images is one text, and any of these images is correct."""
    row: dict[str, int] = {}
    rows = [[row.setdefault(text, len(row)) for text in captions] for captions in data.values]
    return {
        name: {**metrics.retrieval(data.images_NE[name], embed_texts(loaded, list(row)), rows), "texts": len(row)}
        for name, loaded in models.items()
    }


def _linear_probe(
    models: Mapping[str, LoadedModel], task: LinearProbeTask, data: EmbeddedImages, holdout: float, on_sample: OnSample
) -> ModelScores:
    """With `subset: holdout` the probe learns from samples that are not held out, so the shards may be the same."""
    train_task = task.model_copy(update={"shards": task.train_shards, "subset": "all", "where": {}})

    def is_usable(key: str) -> bool:
        return task.subset == "all" or not is_held_out(key, holdout)

    [(_, train, _)] = _embed(models, [train_task], holdout, on_sample, is_usable)
    row = {label: i for i, label in enumerate(sorted(set(train.values), key=lambda label: (len(label), label)))}
    if len(row) < 2:
        message = f"task {task.name}: all labels of train_shards are {min(row)}; a probe needs two classes"
        raise _error(task, "train_shards", message, task.train_shards)
    train_N, test_N = (torch.tensor([row.get(label, -1) for label in d.values]) for d in (train, data))
    scores: ModelScores = {}
    for name, loaded in models.items():
        device = loaded.model.logit_scale.device
        train_NE, test_NE = train.images_NE[name].to(device), data.images_NE[name].to(device)
        probe_NC, c = metrics.linear_probe(train_NE, train_N.to(device), test_NE)
        found = _classification_scores(probe_NC.cpu(), test_N, list(row))
        scores[name] = {**found, "probe_c": c, "train_samples": len(train.keys)}
    return scores


def _embed(
    models: Mapping[str, LoadedModel],
    tasks: Sequence[EvaluationTask],
    holdout: float,
    on_sample: OnSample,
    is_usable: Callable[[str], bool] = lambda key: True,
) -> list[tuple[EvaluationTask, EmbeddedImages, Skipped]]:
    """Make one pass over the shards that these tasks share. Return each task's part; raises DataError if one is empty."""
    skipped, skipped_shards, readers = [Skipped() for _ in tasks], Skipped(), [_ValueReader(task, holdout) for task in tasks]

    def selected() -> Iterator[tuple[Sample, dict[int, Any]]]:
        for sample in read_shards(_shards(tasks[0]), skipped_shards):
            on_sample(sample)
            values = _values(sample, readers, skipped) if is_usable(sample["__key__"]) else {}
            if values:
                yield sample, values

    def on_unreadable(sample: Sample, values: dict[int, Any], error: Exception) -> None:
        for index in values:
            skipped[index].add_sample(sample["__key__"], error)

    data = embed_images(models, selected(), tasks[0].image_key, on_unreadable)
    parts = []
    for index, task in enumerate(tasks):
        rows = [row for row, values in enumerate(data.values) if index in values]
        readers[index].expect_classes(len(rows))
        if not rows:
            examples = "; ".join(skipped[index].examples) or "subset and where select no sample"
            raise _error(task, "shards", f"task {task.name} has nothing to evaluate ({examples})", task.shards)
        skipped[index].shards = skipped_shards.shards
        parts.append((task, data.select(rows, [data.values[row][index] for row in rows]), skipped[index]))
    return parts


def _values(sample: Sample, readers: Sequence["_ValueReader"], skipped: list[Skipped]) -> dict[int, Any]:
    """Return the label or captions for each task that selects the sample, by the task's number."""
    values: dict[int, Any] = {}
    for index, reader in enumerate(readers):
        with skipped[index].unusable(sample):
            if reader.selects(sample):
                values[index] = reader.read(sample)
    return values


class _ValueReader:
    """Reads of each sample what a task compares: the row of its class, its label, or its captions."""

    def __init__(self, task: EvaluationTask, holdout: float) -> None:
        self._task, self._holdout = task, holdout
        self._classes = ClassRows(task_lines(task.classes or [])) if isinstance(task, ZeroShotTask) else None
        self._without_class: list[str] = []

    def selects(self, sample: Sample) -> bool:
        return is_selected(sample, self._task, self._holdout)

    def read(self, sample: Sample) -> Any:
        """Raises any exception."""
        if isinstance(self._task, RetrievalTask):
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
            raise _error(self._task, "classes", f"{message} ({len(self._without_class):,} labels have no class)")


def describe_label(label: str) -> str:
    """Return a label for messages: a number, or that it is a text, whose content is not repeated."""
    return f"label {label}" if label.isdecimal() and len(label) <= MAX_DIGITS else "a text as its label"


def _error(task: EvaluationTask, field: str, message: str, value: object = None) -> DataError:
    return DataError(message, field=f"evaluation.tasks.{task.name}.{field}", value=value)
