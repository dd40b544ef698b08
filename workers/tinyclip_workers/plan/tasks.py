"""Do the evaluation tasks fit their data: classes, labels, templates, captions, subsets?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask

from tinyclip_workers.data.shards import DataError, Sample, sample_json
from tinyclip_workers.evaluation.clip_benchmark import resolved
from tinyclip_workers.evaluation.tasks import belongs, label_index, label_of, task_lines
from tinyclip_workers.plan.data import Findings, check_captions, check_images, report_shards
from tinyclip_workers.plan.shards import Look, extensions, listed, look_at


@dataclass(frozen=True)
class Training:
    """What a job trains on: its shards, and the share of their pairs that it never sees."""

    shards: set[str]
    holdout: float
    holdout_place: str = "data.train.holdout"
    """What a user sets."""


def check_tasks(tasks: Sequence[EvaluationTask], training: Training, pointer: str, findings: Findings) -> None:
    """Every task of a list that stands at `pointer`, all that is wrong with each."""
    names = Counter(task.name for task in tasks)
    for index, written in enumerate(tasks):
        here = f"{pointer}/{index}"
        if names[written.name] > 1:
            findings.error(f"{here}/name", written.name, "is the name of another task as well; names tell results apart")
        task = _resolved(written, here, findings)
        if task is None:
            continue
        look = look_at(task.shards)
        report_shards(look, f"{here}/shards", findings)
        samples = _chosen(task, training, look, here, findings)
        check_images(look.samples, task.image_key, here, findings)
        if isinstance(task, ZeroShotTask):
            _check_zero_shot(task, samples, look.complete, here, findings)
        elif isinstance(task, RetrievalTask):
            check_captions(samples, task.caption_key, f"{here}/caption_key", findings)
        else:
            _check_probe(task, samples, here, findings)


def _resolved(task: EvaluationTask, pointer: str, findings: Findings) -> EvaluationTask | None:
    """The task with what CLIP_benchmark's layout says; null where it is refused."""
    try:
        return resolved(task)
    except DataError as error:
        findings.error(f"{pointer}/{error.field.rsplit('.', 1)[-1]}", error.value, str(error))
    except (OSError, ValueError, ImportError) as error:
        findings.error(f"{pointer}/shards", task.shards, f"cannot be looked at ({error}); check address and access")
    return None


def _chosen(task: EvaluationTask, training: Training, look: Look, pointer: str, findings: Findings) -> list[Sample]:
    """The samples that `subset` and `where` leave of those seen."""
    holdout, place = training.holdout, training.holdout_place
    trained_on = training.shards & listed(task.shards)
    if task.subset == "holdout" and holdout == 0:
        findings.error(f"{pointer}/subset", "holdout", f"nothing is held out of training; set {place}, as 0.1")
        return look.samples
    if task.subset == "holdout" and training.shards and not trained_on:
        findings.warn(f"task {task.name} reads only {holdout:.0%} of shards that are not trained on; subset: all reads the rest")
    if task.subset == "all" and trained_on:
        findings.warn(f"task {task.name} reads shards that are trained on; use subset: holdout for new pictures")
    usable = [sample for sample in look.samples if _json_is_readable(sample)]
    chosen = [sample for sample in usable if belongs(sample, task, holdout)]
    if usable and not chosen and task.where:
        seen = [f"{key}: {_values(usable, key)}" for key in task.where]
        message = f"leaves none of the {len(usable)} samples seen; they have {'; '.join(seen)}"
        findings.error(f"{pointer}/where", task.where, message)
    elif usable and not chosen:
        message = f"leaves none of the {len(usable)} samples seen; raise {place}"
        findings.error(f"{pointer}/subset", task.subset, message)
    return chosen


def _check_zero_shot(task: ZeroShotTask, samples: list[Sample], complete: bool, pointer: str, findings: Findings) -> None:
    _check_templates(task, pointer, findings)
    classes = _lines(task.classes or [], f"{pointer}/classes", findings)
    if not classes:
        return
    rows_seen: set[int] = set()
    labels = _labels(samples, task.label_key, f"{pointer}/label_key", findings)
    _check_names(task, classes, labels, pointer, findings)
    for sample, label in labels:
        row = label_index(label, classes)
        if row is None:
            findings.error(
                f"{pointer}/classes",
                _shown(task.classes or []),
                f"has {len(classes)} classes (0 to {len(classes) - 1}), but sample {sample['__key__']} has label {label} "
                f"under {task.label_key}; give the list that the labels were made with",
            )
            return
        rows_seen.add(row)
    whole = complete and labels and task.subset == "all" and not task.where
    if whole and len(rows_seen) < len(classes) / 2:
        missing = next(name for row, name in enumerate(classes) if row not in rows_seen)
        count = len(classes) - len(rows_seen)
        findings.warn(f"task {task.name}: {count} of {len(classes)} classes have no picture (as {missing!r}); is the list right?")


def _check_names(
    task: ZeroShotTask, classes: list[str], labels: list[tuple[Sample, str]], pointer: str, findings: Findings
) -> None:
    """A name of two classes is ambiguous as a label; with numbers for labels it only costs accuracy (ImageNet's list has two)."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if not twice:
        return
    rows = [row for row, name in enumerate(classes) if name == twice[0]]
    if any(label in twice for _, label in labels):
        findings.error(f"{pointer}/classes", twice[0], f"names {len(rows)} classes ({rows}, from 0); each needs its own name")
    else:
        findings.warn(f"task {task.name}: {twice[0]!r} names {len(rows)} classes ({rows}, from 0), which no text tells apart")


def _check_templates(task: ZeroShotTask, pointer: str, findings: Findings) -> None:
    for template in _lines(task.templates or [], f"{pointer}/templates", findings):
        if "{}" not in template and "{c}" not in template:
            findings.error(f"{pointer}/templates", template, "has no {} for the class name; all classes would read the same")


def _check_probe(task: LinearProbeTask, samples: list[Sample], pointer: str, findings: Findings) -> None:
    train = look_at(task.train_shards or [])
    report_shards(train, f"{pointer}/train_shards", findings)
    check_images(train.samples, task.image_key, pointer, findings)
    labels = {label for _, label in _labels(train.samples, task.label_key, f"{pointer}/label_key", findings)}
    tested = {label for _, label in _labels(samples, task.label_key, f"{pointer}/label_key", findings)}
    if labels and len(labels) < 2:
        findings.error(f"{pointer}/train_shards", task.train_shards, f"all labels are {min(labels)}; a probe needs two classes")
    elif train.complete and labels and not labels & tested:
        findings.error(f"{pointer}/label_key", task.label_key, "no label of the shards is in train_shards; give one set's shards")


def _labels(samples: list[Sample], key: str, pointer: str, findings: Findings) -> list[tuple[Sample, str]]:
    """Labels of the samples that have one; none having one is an error."""
    labels: list[tuple[Sample, str]] = []
    for sample in samples:
        try:
            labels.append((sample, label_of(sample, key)))
        except (KeyError, TypeError, ValueError):
            continue
    if samples and not labels:
        fields = f" and in json {', '.join(sorted(sample_json(samples[0])))}" if "json" in samples[0] else ""
        findings.error(pointer, key, f"sample {samples[0]['__key__']} has none; it has {extensions(samples[0])}{fields}")
    elif len(labels) < len(samples):
        findings.warn(f"{len(samples) - len(labels)} of {len(samples)} samples have no label under {key} and are skipped")
    return labels


def _lines(value: list[str] | str, pointer: str, findings: Findings) -> list[str]:
    try:
        lines = task_lines(value)
    except FileNotFoundError:
        findings.error(pointer, value, f"there is no file {value}; give a list, or the path of a file with one a line")
        return []
    except (OSError, ValueError) as error:
        findings.error(pointer, value, f"cannot be read ({error}); give a list, or a text file with one a line")
        return []
    if not lines:
        findings.error(pointer, _shown(value), "is empty")
    return lines


def _json_is_readable(sample: Sample) -> bool:
    try:
        sample_json(sample)
    except ValueError:
        return False
    return True


def _values(samples: list[Sample], key: str) -> str:
    values = sorted({str(sample_json(sample).get(key, "nothing")) for sample in samples})
    return ", ".join(values[:5]) + (", …" if len(values) > 5 else "")


def _shown(value: list[str] | str) -> str:
    """A path as it is, a list as its first entries."""
    return value if isinstance(value, str) else ", ".join(value[:3]) + (", …" if len(value) > 3 else "")
