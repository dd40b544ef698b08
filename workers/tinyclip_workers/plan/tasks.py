"""Checks of evaluation tasks against their data: classes, labels, templates, captions and subsets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.samples import Sample, UnusableSample, extensions, sample_errors, sample_json, text_field
from tinyclip_workers.evaluation.by_language import split_by_language
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.labels import (
    MAX_PROMPTS,
    ClassRows,
    describe_label,
    is_another_list,
    is_selected,
    prompts_problem,
    task_lines,
)
from tinyclip_workers.plan.data import check_captions, check_images, json_fields, report_shards
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.languages import check_languages
from tinyclip_workers.plan.shards import ShardInspection, inspect_shards, shard_urls


@dataclass(frozen=True)
class TrainingData:
    """The shards that a job trains on, and the share of their pairs that is held out."""

    shards: set[str]
    holdout: float
    holdout_field: str = "data.train.holdout"
    """The field that sets it, for messages."""


def check_tasks(tasks: Sequence[EvaluationTask], training: TrainingData, pointer: str, diagnostics: Diagnostics) -> None:
    """Check every task of the list at `pointer`."""
    names = Counter(name for task in tasks for name in task.result_names())
    for index, written in enumerate(tasks):
        here = f"{pointer}/{index}"
        if any(names[name] > 1 for name in written.result_names()):
            diagnostics.error(f"{here}/name", written.name, "is also the name of another task; results need distinct names")
        diagnostics.begin(f"{here}/shards", written.shards, f"reading the data of task {written.name}")
        task = _resolve(written, here, diagnostics)
        if task is None:
            continue
        inspection = inspect_shards(task.shards)
        report_shards(inspection, f"{here}/shards", diagnostics)
        samples = _selected_samples(task, training, inspection, here, diagnostics)
        check_images(inspection.samples, task.image_key, here, diagnostics)
        if isinstance(task, ZeroShotTask):
            for each in split_by_language([task]):
                assert isinstance(each, ZeroShotTask)
                _check_zero_shot(each, samples, inspection.complete, here, diagnostics)
        elif isinstance(task, RetrievalTask):
            check_captions(samples, task.caption_key, f"{here}/caption_key", diagnostics)
            check_languages(samples, task, here, diagnostics)
        else:
            _check_probe(task, samples, here, diagnostics)


def _resolve(task: EvaluationTask, pointer: str, diagnostics: Diagnostics) -> EvaluationTask | None:
    """Return the task with the fields from CLIP_benchmark's layout; None if it is refused."""
    try:
        return resolve_task(task)
    except DataError as error:
        diagnostics.error(f"{pointer}/{error.field.rsplit('.', 1)[-1]}", error.value, str(error))
    except (OSError, ValueError, ImportError) as error:
        diagnostics.error(f"{pointer}/shards", task.shards, f"cannot be read ({error}); check address and access")
    return None


def _selected_samples(
    task: EvaluationTask, training: TrainingData, inspection: ShardInspection, pointer: str, diagnostics: Diagnostics
) -> list[Sample]:
    """Return the inspected samples that `subset` and `where` select."""
    holdout, holdout_field = training.holdout, training.holdout_field
    trained_on = training.shards & shard_urls(task.shards)
    if task.subset == "holdout" and holdout == 0:
        diagnostics.error(f"{pointer}/subset", "holdout", f"nothing is held out of training; set {holdout_field}, as 0.1")
        return inspection.samples
    if task.subset == "holdout" and training.shards and not trained_on:
        diagnostics.warn(
            f"task {task.name} reads only {holdout:.0%} of shards that are not trained on; subset: all reads the rest"
        )
    if task.subset == "all" and trained_on:
        diagnostics.warn(f"task {task.name} reads shards that are trained on; use subset: holdout for unseen images")
    usable = [sample for sample in inspection.samples if _json_is_readable(sample)]
    chosen = [sample for sample in usable if is_selected(sample, task, holdout)]
    if usable and not chosen and task.where:
        values = [f"{key}: {_values(usable, key)}" for key in task.where]
        message = f"selects none of the {len(usable)} samples read; they have {'; '.join(values)}"
        diagnostics.error(f"{pointer}/where", task.where, message)
    elif usable and not chosen:
        message = f"selects none of the {len(usable)} samples read; raise {holdout_field}"
        diagnostics.error(f"{pointer}/subset", task.subset, message)
    return chosen


def _check_zero_shot(task: ZeroShotTask, samples: list[Sample], complete: bool, pointer: str, diagnostics: Diagnostics) -> None:
    templates = _checked_templates(task, pointer, diagnostics)
    classes = _lines(_of_one_language(task.classes), f"{pointer}/classes", diagnostics)
    if not classes:
        return
    if len(classes) * len(templates) > MAX_PROMPTS:
        diagnostics.error(f"{pointer}/templates", _abbreviated(task.templates or []), prompts_problem(classes, templates))
        return
    labels = _labels(samples, task.label_key, f"{pointer}/label_key", diagnostics)
    _check_names(task, classes, labels, pointer, diagnostics)
    rows_seen = _class_rows(task, classes, labels, pointer, diagnostics)
    exhaustive = complete and labels and task.subset == "all" and not task.where
    if exhaustive and len(rows_seen) < len(classes) / 2:
        missing = next(row for row in range(len(classes)) if row not in rows_seen)
        count = len(classes) - len(rows_seen)
        diagnostics.warn(
            f"task {task.name}: {count} of {len(classes)} classes have no image (the first is number {missing}); check the list"
        )


def _class_rows(
    task: ZeroShotTask, classes: list[str], labels: list[tuple[Sample, str]], pointer: str, diagnostics: Diagnostics
) -> set[int]:
    """Return the rows of the labels. Many labels without a class are an error, as in an evaluation."""
    rows = ClassRows(classes)
    found = [(sample, label, rows.row(label)) for sample, label in labels]
    without = [(sample, label) for sample, label, row in found if row is None]
    if without:
        sample, label = without[0]
        message = f"sample {sample['__key__']} has {describe_label(label)} under {task.label_key}"
        if is_another_list(len(without), len(found)):
            message = f"has {len(classes)} classes (0 to {len(classes) - 1}), but {message}"
            message = f"{message}; give the list that the labels were made with"
            diagnostics.error(f"{pointer}/classes", _abbreviated(task.classes or []), message)
        else:
            skipped = f"{len(without)} of {len(found)} labels are none of the {len(classes)} classes and are skipped"
            diagnostics.warn(f"task {task.name}: {skipped}: {message}")
    return {row for _, _, row in found if row is not None}


def _check_names(
    task: ZeroShotTask, classes: list[str], labels: list[tuple[Sample, str]], pointer: str, diagnostics: Diagnostics
) -> None:
    """A name of two classes is an ambiguous label; with numbers as labels it only lowers accuracy (ImageNet's list has two)."""
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if not repeated:
        return
    rows = [row for row, name in enumerate(classes) if name == repeated[0]]
    name = repr(repeated[0]) if isinstance(task.classes, list) else "one name"  # no content of a file is quoted
    places = f"{rows[:5]}, from 0" if len(rows) <= 5 else f"{rows[:5]} and so on, from 0"
    if not {label for _, label in labels}.isdisjoint(repeated):
        message = f"{name} names {len(rows)} classes ({places}); each needs its own name"
        diagnostics.error(f"{pointer}/classes", _abbreviated(task.classes or []), message)
    else:
        diagnostics.warn(f"task {task.name}: {name} names {len(rows)} classes ({places}), which no text can distinguish")


def _checked_templates(task: ZeroShotTask, pointer: str, diagnostics: Diagnostics) -> list[str]:
    """Return the templates. A file's content is not quoted: it may be any file."""
    templates = _lines(_of_one_language(task.templates), f"{pointer}/templates", diagnostics)
    bad = [line for line, template in enumerate(templates, 1) if "{}" not in template and "{c}" not in template]
    if bad:
        message = f"template {bad[0]} of {len(templates)} has no {{}} for the class name; all classes would have the same prompt"
        diagnostics.error(f"{pointer}/templates", _abbreviated(task.templates or []), message)
    return templates


def _check_probe(task: LinearProbeTask, samples: list[Sample], pointer: str, diagnostics: Diagnostics) -> None:
    train = inspect_shards(task.train_shards or [])
    report_shards(train, f"{pointer}/train_shards", diagnostics)
    check_images(train.samples, task.image_key, pointer, diagnostics)
    labels = {label for _, label in _labels(train.samples, task.label_key, f"{pointer}/label_key", diagnostics)}
    tested = {label for _, label in _labels(samples, task.label_key, f"{pointer}/label_key", diagnostics)}
    if labels and len(labels) < 2:
        message = "all labels are the same; a probe needs two classes"
        diagnostics.error(f"{pointer}/train_shards", task.train_shards, message)
    elif train.complete and labels and not labels & tested:
        message = "no label of the shards is in train_shards; give one set's shards"
        diagnostics.error(f"{pointer}/label_key", task.label_key, message)


def _labels(samples: list[Sample], key: str, pointer: str, diagnostics: Diagnostics) -> list[tuple[Sample, str]]:
    """Return the labels of the samples that have one; it is an error if none has."""
    labels: list[tuple[Sample, str]] = []
    for sample in samples:
        try:
            with sample_errors():
                labels.append((sample, text_field(sample, key)))
        except UnusableSample:
            continue
    if samples and not labels:
        fields = f" and in json {json_fields(samples[0])}" if "json" in samples[0] else ""
        diagnostics.error(pointer, key, f"sample {samples[0]['__key__']} has none; it has {extensions(samples[0])}{fields}")
    elif len(labels) < len(samples):
        diagnostics.warn(f"{len(samples) - len(labels)} of {len(samples)} samples have no label under {key} and are skipped")
    return labels


def _lines(value: list[str] | str, pointer: str, diagnostics: Diagnostics) -> list[str]:
    try:
        lines = task_lines(value)
    except FileNotFoundError:
        diagnostics.error(pointer, value, f"there is no file {value}; give a list, or the path of a file with one a line")
        return []
    except (OSError, ValueError) as error:
        diagnostics.error(pointer, value, f"cannot be read ({error}); give a list, or a text file with one a line")
        return []
    if not lines:
        diagnostics.error(pointer, _abbreviated(value), "is empty")
    return lines


def _json_is_readable(sample: Sample) -> bool:
    try:
        with sample_errors():
            sample_json(sample)
    except UnusableSample:
        return False
    return True


def _values(samples: list[Sample], key: str) -> str:
    values = sorted({_shown(sample_json(sample).get(key)) for sample in samples})
    return ", ".join(values[:5]) + (", …" if len(values) > 5 else "")


def _shown(value: object) -> str:
    """Return a number or a truth value; of a text only that it is one, since content of files is not repeated."""
    if value is None:
        return "nothing"
    if isinstance(value, int | float):
        return str(value)[:50]
    return "another text" if isinstance(value, str) else "a list or an object"


def _of_one_language(value: list[str] | str | dict[str, list[str] | str] | None) -> list[str] | str:
    assert not isinstance(value, dict), "a task of one language"
    return value or []


def _abbreviated(value: list[str] | str | dict[str, list[str] | str]) -> str:
    """Return a path unchanged, and a list as its first entries."""
    if isinstance(value, dict):
        return ", ".join(value)
    return value if isinstance(value, str) else ", ".join(value[:3]) + (", …" if len(value) > 3 else "")
