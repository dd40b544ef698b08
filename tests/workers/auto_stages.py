"""Stages of a tiny job as trainers, without driver or service."""

from collections.abc import Iterator
from typing import Any

import torch
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.inheritance.leading import inherit_leading
from tinyclip_workers.inheritance.students import Calibration, embedding_targets
from tinyclip_workers.model.architecture import build_clip, build_model, resolve_layout
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training.calibration import draw_calibration
from tinyclip_workers.training.stage import Parent, build_student, resolve_stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.trainer import Hooks, StageTrainer
from torch import Tensor

RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"layers": 1, "width": 32, "heads": 2, "context_length": 12, "vocab_size": 49408}
STUDENT = StudentSpec.model_validate(
    {
        "embed_dim": 16,
        "image": {"layers": 2, "width": 32, "head_width": 8, "patch_size": 16, "image_size": 32},
        "text": {"layers": 1, "width": 32, "heads": 4, "context_length": 12, "vocab_size": 49408},
    }
)
TEACHER: Layout = resolve_layout(STUDENT, None)
STEPS, PRUNE_STEP, BATCH = 32, 28, 8
CPU = torch.device("cpu")
QUICK_MASKS = {"lr": 1e-3, "mask_lr": 0.4}
"""Log-odds have to move by about five, in few steps."""


def auto(target: float, name: str = "auto", **changes: Any) -> dict[str, Any]:
    """Return an automatic stage of a spec."""
    prune = {"search": "joint", "target_sparsity": target, "prune_step": PRUNE_STEP, "sparsity_warmup": 1, **changes}
    return {"name": name, "inherit": "auto", "prune": prune, "train": {"steps": STEPS}}


def spec_of(shards: str, *stages: dict[str, Any], **changes: Any) -> JobSpec:
    document = {
        "name": "shapes",
        "teacher": {"model": "local-dir:not-read-here"},
        "data": {"train": {"shards": shards, "caption_key": "json.captions"}},
        "stages": [*stages],
        "optimizer": QUICK_MASKS,
        "batch_size": BATCH,
        "precision": "fp32",
        **changes,
    }
    return JobSpec.model_validate(document)


def trainer_of(
    spec: JobSpec,
    index: int = 0,
    before: StageTrainer | None = None,
    original: Layout = TEACHER,
    taught_by: FrozenTeacher | None = None,
    device: torch.device = CPU,
) -> StageTrainer:
    """Make a stage's trainer, whose student inherits from the teacher or from the stage `before`.

    `taught_by` is the teacher to learn from, if it is not the one to inherit from.
    """
    torch.manual_seed(3)
    teacher = build_model(original)
    weights, layout = (teacher.state_dict(), original) if before is None else (before.student.state_dict(), before.learner.layout)
    stage = resolve_stage(spec, index, layout, before.stage if before else None, 96)
    student: Model = Clip(stage.layout) if stage.inherit == "auto" else build_clip(stage.layout)
    if stage.inherit != "none":
        inherited = weights if stage.inherit == "auto" else inherit_leading(student, weights, stage.layout, layout)
        student.load_state_dict(inherited)
    frozen = taught_by or FrozenTeacher(teacher, 20.0)
    return StageTrainer(spec, stage, student, [frozen.to(device)], device, mean=OPENAI_MEAN, std=OPENAI_STD)


def calibrated_trainer(spec: JobSpec, noise: float = 0.0) -> StageTrainer:
    """Make the trainer of a first stage that cuts its student by calibration pairs, to which `noise` is added."""
    torch.manual_seed(3)
    teacher, stage = build_model(TEACHER).eval(), resolve_stage(spec, 0, TEACHER, None, 96)
    frozen, parent = FrozenTeacher(teacher, 20.0), Parent(teacher.state_dict(), TEACHER)
    start = LoadedModel(teacher, TEACHER, make_tokenizer(TEACHER), OPENAI_MEAN, OPENAI_STD, name="start", digest="")

    def calibration() -> Calibration:
        pairs = draw_calibration(spec, index_shards(spec.data.train), 0, start, teacher, torch.device("cpu"), pairs=64).pairs
        pairs = pairs._replace(images_NCHW=pairs.images_NCHW + noise * torch.randn_like(pairs.images_NCHW))
        return Calibration(pairs, embedding_targets(teacher, pairs, stage.layout.embed_dim))

    student = build_student(stage, spec.seed, parent, calibration)
    return StageTrainer(
        spec, stage, student, [frozen], torch.device("cpu"), mean=OPENAI_MEAN, std=OPENAI_STD, calibration=calibration
    )


def batches_of(trainer: StageTrainer) -> Iterator[Batch]:
    tokenizer = make_tokenizer(trainer.stage.layout)
    stream = PairStream(
        trainer.spec.data,
        index_shards(trainer.spec.data.train),
        batch_size=trainer.stage.batch_size,
        image_size=32,
        tokenize=lambda text: tokenizer(text)[0],
        seed=trainer.spec.seed,
        start=trainer.position,
    )
    return iter(BatchLoader(stream, 0))


def hooks(**replaced: Any) -> Hooks:
    nothing = {
        "command": lambda: Command.RUN,
        "progress": lambda _: None,
        "checkpoint": lambda _: None,
        "evaluate": lambda _: None,
    }
    return Hooks(**{**nothing, **replaced})


def train(trainer: StageTrainer, **replaced: Any) -> StageTrainer:
    """Train to the end of the stage, or until a hook stops it."""
    trainer.run(batches_of(trainer), hooks(**replaced))
    return trainer


def weights(trainer: StageTrainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def all_tensors(trainer: StageTrainer) -> dict[str, Tensor]:
    return {f"{kind}.{name}": tensor for kind, named in trainer.learner.tensors().items() for name, tensor in named.items()}
