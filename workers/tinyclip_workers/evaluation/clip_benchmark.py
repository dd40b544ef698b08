"""CLIP_benchmark's WebDataset layout (https://github.com/LAION-AI/CLIP_benchmark, `build_wds_dataset`).

    ROOT/classnames.txt                          one class a line, in the order of the labels
    ROOT/zeroshot_classification_templates.txt   one prompt a line, with {c} for the class name
    ROOT/dataset_type.txt                        classification (also if it is missing), retrieval or multilabel
    ROOT/SPLIT/nshards.txt                       N
    ROOT/SPLIT/0.tar … N-1.tar                   KEY.webp|png|jpg|jpeg and KEY.cls, or KEY.txt with one caption a line

A task whose `shards` is such a folder (a split, or the root for its `test` split) needs only a name and a kind.
"""

import re
from dataclasses import dataclass

from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.patterns import MAX_SHARDS
from tinyclip_workers.evaluation.labels import task_error
from tinyclip_workers.runtime.user_files import read_file

MAX_FILE_BYTES, MAX_DIGITS = 4 << 20, 9
"""Limits of the layout's text files, and of the digits of the number of shards."""

DEFAULT_SPLIT, TRAINING_SPLIT = "test", "train"
DEFAULT_TEMPLATES = ["a photo of a {}."]

_SHARD_PATTERN = re.compile(r"[*?\[{]|\.(tar|tgz)\b[^/]*$")
"""Matches patterns of shards, as opposed to a folder of them."""
_HUB_PAGE = re.compile(r"(https://huggingface\.co/datasets/[^/]+/[^/]+)/tree/([^/]+)(/.*)?")


@dataclass(frozen=True)
class Split:
    """A split of a data set, with the addresses of its shards."""

    root: str
    name: str
    shards: list[str]


def resolve_task(task: EvaluationTask) -> EvaluationTask:
    """Return the task with its shards listed, and with the fields that it leaves out taken from the layout.

    Raises DataError if the layout is of another kind, or if neither task nor layout has a required field.
    """
    split = find_split(task.shards)
    if split is None:
        return _without_layout(task)
    _expect_kind(task, split)
    if isinstance(task, ZeroShotTask):
        classes = task.classes if task.classes is not None else _lines(task, split, "classnames.txt", "classes")
        templates = task.templates
        if templates is None:
            templates = _lines(task, split, "zeroshot_classification_templates.txt", "templates")
        return task.model_copy(update={"shards": split.shards, "classes": classes, "templates": templates})
    if isinstance(task, LinearProbeTask):
        train = find_split(task.train_shards if task.train_shards is not None else f"{split.root}/{TRAINING_SPLIT}")
        if train is None and task.train_shards is None:
            message = f"task {task.name}: {split.root} has no {TRAINING_SPLIT}/nshards.txt; give train_shards"
            raise task_error(task, "train_shards", message)
        return task.model_copy(
            update={"shards": split.shards, "train_shards": train.shards if train is not None else task.train_shards}
        )
    return task.model_copy(update={"shards": split.shards})


def find_split(shards: str | list[str]) -> Split | None:
    """Return the split in a folder, or the `test` split of a root; None for anything else. Raises DataError."""
    if not isinstance(shards, str) or _SHARD_PATTERN.search(shards):
        return None
    folder = shards.rstrip("/")
    parent, _, last = folder.rpartition("/")
    for root, name in ((parent, last), (folder, DEFAULT_SPLIT)):
        text = _read(f"{root}/{name}/nshards.txt")
        if text is not None:
            return Split(root, name, _shard_urls(root, name, text))
    return None


def _shard_urls(root: str, name: str, text: str) -> list[str]:
    count = int(text) if text.strip().isdecimal() and len(text.strip()) <= MAX_DIGITS else 0
    if not 1 <= count <= MAX_SHARDS:
        where = f"{root}/{name}/nshards.txt"
        raise DataError(f"{where} must hold the number of shards, 1 to {MAX_SHARDS:,}", field="shards", value=where)
    return [f"{_address(root, 'resolve')}/{name}/{number}.tar" for number in range(count)]


def _without_layout(task: EvaluationTask) -> EvaluationTask:
    if isinstance(task, LinearProbeTask):
        train = None if task.train_shards is None else find_split(task.train_shards)
        if task.train_shards is None:
            message = f"task {task.name} has no train_shards; give the shards that the probe learns from"
            raise task_error(task, "train_shards", message)
        return task if train is None else task.model_copy(update={"train_shards": train.shards})
    if not isinstance(task, ZeroShotTask):
        return task
    if task.classes is None:
        message = f"task {task.name} has no classes, and its shards are not a folder in CLIP_benchmark's layout that has them"
        raise task_error(task, "classes", f"{message}; give a list or a file with one a line")
    return task if task.templates is not None else task.model_copy(update={"templates": DEFAULT_TEMPLATES})


def _expect_kind(task: EvaluationTask, split: Split) -> None:
    text = _read(f"{split.root}/dataset_type.txt")
    kind = "classification" if text is None else text.strip().lower()
    if kind == "multilabel":
        message = f"task {task.name}: {split.root} has several labels for an image, which no task supports; use another one"
        raise task_error(task, "shards", message, task.shards)
    if (kind == "retrieval") != isinstance(task, RetrievalTask):
        found = f"a {kind} set" if kind in ("retrieval", "classification") else "a set of another kind"
        expected = "retrieval" if kind == "retrieval" else "zero_shot or linear_probe"
        raise task_error(task, "kind", f"task {task.name}: {split.root} is {found}; use kind: {expected}", task.kind)


def _lines(task: EvaluationTask, split: Split, file: str, field: str) -> list[str]:
    text = _read(f"{split.root}/{file}")
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not lines:
        raise task_error(task, field, f"task {task.name}: {split.root} has no {file}; give {field}")
    return lines


def _read(address: str) -> str | None:
    """Raises UnicodeDecodeError, or OSError as `read_file`."""
    try:
        return read_file(_address(address, "raw"), MAX_FILE_BYTES).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _address(address: str, form: str) -> str:
    """Return the address of a file on a page of the Hugging Face hub: small files are at `raw`, large ones at `resolve`."""
    page = _HUB_PAGE.fullmatch(address)
    return f"{page[1]}/{form}/{page[2]}{page[3] or ''}" if page else address
