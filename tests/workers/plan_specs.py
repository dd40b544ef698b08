"""A valid spec, and changes of it that a plan must refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shards import COLORS, color_samples, write_shard

Document = dict[str, Any]
Change = Callable[[Document, Path], None]


def write_data(folder: Path) -> Path:
    """Write a teacher, training shards and validation shards."""
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    write_shard(folder / "train-0.tar", color_samples(40))
    write_shard(folder / "train-1.tar", color_samples(24, start=40))
    write_shard(folder / "val.tar", color_samples(20, start=100))
    return folder


def spec(folder: Path) -> Document:
    """A valid spec with every kind of task."""
    val = {"shards": str(folder / "val.tar"), "image_key": ["png"]}
    return {
        "name": "half",
        "teacher": {"model": f"local-dir:{folder}/teacher"},
        "data": {
            "train": {
                "shards": f"{folder}/train-{{0..1}}.tar", "image_key": ["png"], "caption_key": "json.captions",
                "distinct_key": "json.label", "holdout": 0.1,
            }
        },
        "evaluation": {
            "tasks": [
                {"name": "colors", "kind": "zero_shot", "classes": list(COLORS), "templates": ["a {} square"], **val},
                {"name": "words", "kind": "retrieval", **val},
                {"name": "probe", "kind": "linear_probe", "train_shards": f"{folder}/train-0.tar", **val},
                {
                    "name": "new", "kind": "retrieval", "subset": "holdout", "image_key": ["png"],
                    "shards": f"{folder}/train-{{0..1}}.tar",
                },
            ]
        },
        "stages": [
            {"name": "deep", "student": {"text": {"layers": 1}}, "train": {"epochs": 2}},
            {"name": "slim", "student": {"image": {"width": 2}, "text": {"width": 8, "heads": 1}}, "train": {"steps": 30}},
        ],
        "optimizer": {"warmup_steps": 2},
        "batch_size": 4,
    }


def at(*path: str | int) -> Callable[[Any], Change]:
    """A change of the spec: set a value at a path."""

    def set_to(value: Any) -> Change:
        def change(document: Document, folder: Path) -> None:
            target: Any = document
            for part in path[:-1]:
                target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
            target[path[-1]] = value(folder) if callable(value) else value

        return change

    return set_to


def shard_of(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], str]:
    """Write a shard whose samples were all changed."""

    def write(folder: Path) -> str:
        samples = color_samples(20)
        for sample in samples:
            change(sample)
        return write_shard(folder / "changed.tar", samples)

    return write


def classes_file(text: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "classes.txt").write_text(text)
        return str(folder / "classes.txt")

    return write


def not_a_tar(folder: Path) -> str:
    (folder / "not-a-tar.tar").write_bytes(b"this is not a tar file" * 100)
    return str(folder / "not-a-tar.tar")


TRAIN, STUDENT, TASK = ("data", "train"), ("stages", 1, "student"), ("evaluation", "tasks", 0)
def pruned(**changes: Any) -> Document:
    """An automatic stage of the text tower."""
    prune = {"target_sparsity": 0.5, "prune_step": 3, "sparsity_warmup": 1, "towers": ["text"], **changes}
    return {"name": "a", "inherit": "auto", "prune": prune, "train": {"steps": 9}}


PRUNED = pruned(towers=["image", "text"])

INVALID: list[tuple[str, Change, str, str]] = [
    ("teacher", at("teacher", "model")("local-dir:/nowhere"), "/teacher/model", "no model folder at /nowhere"),
    ("deeper", at(*STUDENT)({"text": {"layers": 3}}), "/stages/1/student/text/layers", "give at most 1"),
    ("wider", at(*STUDENT)({"image": {"width": 8}}), "/stages/1/student/image/width", "give at most 4"),
    ("stages of a resnet", at(*STUDENT)({"image": {"layers": [1, 2, 1, 1]}}), "/stages/1/student/image/layers", "at most 1"),
    ("heads", at(*STUDENT)({"text": {"heads": 3}}), "/stages/1/student/text/heads", "do not divide the width 16"),
    ("heads of another width", at(*STUDENT)({"text": {"width": 8, "heads": 2}}), "/stages/1/student/text/heads",
     "heads of width 4 cannot be selected"),
    ("vit of a resnet", at(*STUDENT)({"image": {"layers": 2, "width": 64, "patch_size": 8}}),
     "/stages/1/student/image", "cannot inherit"),
    ("preset name", at(*STUDENT)({"preset": "TinyCLIP-ViT-8M"}), "/stages/1/student/preset", "did you mean TinyCLIP-ViT-8M-16"),
    ("preset size", at(*STUDENT)({"preset": "TinyCLIP-ResNet-19M-Text-19M"}), "/stages/1/student/preset", "does not fit"),
    ("image size", at(*STUDENT)({"image": {"image_size": 64}}), "/stages/1/student/image/image_size", "32"),
    ("vocabulary", at(*STUDENT)({"text": {"vocab_size": 100}}), "/stages/1/student/text/vocab_size", "49408 tokens"),
    ("masks of a resnet", at("stages", 1)(PRUNED), "/stages/1/prune/towers", "has no heads or MLP units to mask"),
    ("late prune", at("stages", 1)(pruned(prune_step=9)), "/stages/1/prune/prune_step", "which has 9 steps"),
    ("target below start", at("stages", 1)(pruned(start_sparsity=0.6)), "/stages/1/prune/target_sparsity", "start_sparsity 0.6"),
    ("slow ramp", at("stages", 1)(pruned(sparsity_warmup=8)), "/stages/1/prune/sparsity_warmup", "after the prune step 3"),
    ("pruned before", at("stages")([PRUNED, {**PRUNED, "name": "b"}]), "/stages/1/prune/target_sparsity", "target is 0.5"),
    ("missing shard", at(*TRAIN, "shards")("/nowhere/a.tar"), "/data/train/shards", "/nowhere/a.tar is not there"),
    ("no match", at(*TRAIN, "shards")("/nowhere/*.tar"), "/data/train/shards", "names no shard"),
    ("no tar", at(*TRAIN, "shards")(not_a_tar), "/data/train/shards", "not-a-tar.tar is not a whole tar file"),
    ("empty shard", at(*TRAIN, "shards")(lambda f: write_shard(f / "empty.tar", [])), "/data/train/shards", "has no samples"),
    ("no images", at(*TRAIN, "image_key")(["jpg"]), "/data/train/image_key", "it has cls, json, png, txt"),
    ("broken images", at(*TRAIN, "shards")(shard_of(lambda s: s.update(png=b"nothing"))),
     "/data/train/shards", "not a readable image"),
    ("no captions", at(*TRAIN, "caption_key")("json.words"), "/data/train/caption_key", "name the file or json.FIELD"),
    ("not text", at(*TRAIN)(lambda f: {"shards": shard_of(lambda s: s.update(txt=b"\xff\xfe\x00"))(f), "image_key": ["png"]}),
     "/data/train/caption_key", "its text is not UTF-8"),
    ("empty captions", at(*TRAIN)(lambda f: {"shards": shard_of(lambda s: s.update(txt="  "))(f), "image_key": ["png"]}),
     "/data/train/caption_key", "is empty"),
    ("one caption", at(*TRAIN)(lambda f: {"shards": shard_of(lambda s: s.update(txt="a photo"))(f), "image_key": ["png"]}),
     "/data/train/caption_key", "all 20 captions read are the same"),
    ("numbers", at(*TRAIN, "caption_key")("cls"), "/data/train/caption_key", "the captions are numbers, not text"),
    ("distinct key", at(*TRAIN, "distinct_key")("json.lable"),
     "/data/train/distinct_key", "json fields captions, label, name, odd"),
    ("large batch", at("batch_size")(100), "/batch_size", "fills no such batch"),
    ("stage's batch", at("stages", 1, "batch_size")(100), "/stages/1/batch_size", "fills no such batch"),
    ("uneven batch", at("resources")({"workers": 3}), "/batch_size", "does not divide over 3 workers; try 3 or 6"),
    ("uneven range", at("resources")({"workers": {"min": 3, "max": 3}}), "/batch_size", "does not divide over 3 workers"),
    ("impossible range", at("resources")({"workers": {"min": 5, "max": 9}}), "/batch_size", "over 5 to 9 workers; try 5"),
    ("fp16", lambda d, f: d.update(precision="fp16", resources={"device": "cpu"}), "/precision", "does not train on CPUs"),
    ("task's shard", at(*TASK, "shards")("/nowhere/v.tar"), "/evaluation/tasks/0/shards", "is not there"),
    ("few classes", at(*TASK, "classes")(["red", "green", "blue"]), "/evaluation/tasks/0/classes", "has label 3 under cls"),
    ("class twice", at(*TASK)(lambda f: {
        "name": "colors", "kind": "zero_shot", "classes": ["red", "red", *COLORS], "label_key": "json.name", "image_key": ["png"],
        "shards": shard_of(lambda s: None)(f),
     }), "/evaluation/tasks/0/classes", "names 3 classes ([0, 1, 2]"),
    ("no classes", at(*TASK, "classes")(None), "/evaluation/tasks/0/classes", "has no classes"),
    ("no probe's shards", at("evaluation", "tasks", 2, "train_shards")(None),
     "/evaluation/tasks/2/train_shards", "has no train_shards"),
    ("no class file", at(*TASK, "classes")("/nowhere/c.txt"), "/evaluation/tasks/0/classes", "there is no file /nowhere/c.txt"),
    ("empty class file", at(*TASK, "classes")(classes_file("\n")), "/evaluation/tasks/0/classes", "is empty"),
    ("template", at(*TASK, "templates")(["a photo"]), "/evaluation/tasks/0/templates", "has no {}"),
    ("no label", at(*TASK, "label_key")("json.kind"), "/evaluation/tasks/0/label_key", "in json captions, label, name, odd"),
    ("where", at(*TASK, "where")({"odd": "yes"}), "/evaluation/tasks/0/where", "they have odd: False, True"),
    ("no holdout", at(*TRAIN, "holdout")(0), "/evaluation/tasks/3/subset", "set data.train.holdout"),
    ("task twice", at("evaluation", "tasks", 1, "name")("colors"), "/evaluation/tasks/1/name", "name of another task"),
    ("probe's shard", at("evaluation", "tasks", 2, "train_shards")("/no.tar"),
     "/evaluation/tasks/2/train_shards", "is not there"),
]
"""Name, change, the pointer of the error and a part of its message."""
