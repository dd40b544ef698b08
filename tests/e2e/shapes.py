"""A teacher, coloured shapes with captions, and a spec, all so small that a job is made of seconds."""

from pathlib import Path

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shapes_data import write_shards

SPEC = """\
name: shapes
teacher: {model: "local-dir:teacher"}
data: {train: {shards: "train/*.tar", holdout: 0.1}, shuffle: 100}
evaluation:
  tasks:
    - {name: colours, kind: zero_shot, shards: "val/*.tar", classes: classes.txt, label_key: json.color}
    - {name: captions, kind: retrieval, shards: "val/*.tar"}
stages:
  - {name: thinner, student: {text: {layers: 1}}, train: {steps: 120}}
  - {name: half, student: {image: {width: 2}}, train: {steps: 120}}
batch_size: 16
precision: fp32
optimizer: {lr: 1e-3}
checkpoint: {every_steps: 20, keep: 2}
"""


def write_world(folder: Path) -> Path:
    """Everything that the spec names, beside it; returns the spec's file."""
    write_shards(folder / "train", shards=2, pairs=150)
    write_shards(folder / "val", shards=1, pairs=48, name="val")
    (folder / "classes.txt").write_text("red\ngreen\nblue\nyellow\nblack\nviolet\n")
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    (folder / "shapes.yaml").write_text(SPEC)
    return folder / "shapes.yaml"
