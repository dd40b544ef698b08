"""An automatic stage: the masks find the student, the fold makes it, and a resumed run finds the same one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip_workers.architecture import build_model, resolve_layout
from tinyclip_workers.checkpoint import latest_checkpoint, save_checkpoint
from tinyclip_workers.control import Command
from tinyclip_workers.data import Batch, PairStream, make_loader
from tinyclip_workers.images import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.inherit import inherit_manual
from tinyclip_workers.masked import MaskedTowers, removed_share
from tinyclip_workers.model_folder import make_tokenizer
from tinyclip_workers.stage import Stage, resolve_stage
from tinyclip_workers.step import FrozenTeacher
from tinyclip_workers.store import Store
from tinyclip_workers.towers import Clip, Model
from tinyclip_workers.trainer import MAX_SKIPPED_STEPS, Diverged, Hooks, StageTrainer, StepResult
from torch import Tensor

from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

IMAGE = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 16, "image_size": 32}
TEXT = {"layers": 1, "width": 32, "heads": 4, "context_length": 12, "vocab_size": 49408}
TEACHER = {"embed_dim": 16, "image": IMAGE, "text": TEXT}
STEPS, PRUNE_STEP = 9, 6
FAST = {"lr": 1e-3, "mask_lr": 1.5}
"""Masks that have to get there in six steps."""


def auto(target: float = 0.5, **changes: Any) -> dict[str, Any]:
    prune = {"target_sparsity": target, "prune_step": PRUNE_STEP, "sparsity_warmup": 1, **changes}
    return {"name": f"to-{round(100 * (1 - target))}", "inherit": "auto", "prune": prune, "train": {"steps": STEPS}}


def spec_of(shards: str, *stages: dict[str, Any], **changes: Any) -> JobSpec:
    document = {
        "name": "shapes",
        "teacher": {"model": "local-dir:not-read-here"},
        "data": {"train": {"shards": shards, "caption_key": "json.captions"}},
        "stages": stages,
        "optimizer": FAST,
        "batch_size": 8,
        **changes,
    }
    return JobSpec.model_validate(document)


def teacher() -> Any:
    torch.manual_seed(3)
    return build_model(resolve_layout(JobSpec.model_fields and spec_student(), None))


def spec_student() -> Any:
    from tinyclip.schemas.spec import StudentSpec

    return StudentSpec.model_validate(TEACHER)


def trainer_of(spec: JobSpec, index: int = 0, parent: StageTrainer | None = None) -> StageTrainer:
    """A stage's trainer with the teacher, or what another stage has left, as its student."""
    original = teacher()
    layout = parent.learner.layout if parent else resolve_layout(spec_student(), None)
    stage = resolve_stage(spec, index, layout, parent.stage if parent else None, 96)
    state = (parent.student if parent else original).state_dict()
    student = student_of(stage, state, layout)
    return StageTrainer(
        spec, stage, student, FrozenTeacher(original, 20.0), torch.device("cpu"), mean=OPENAI_MEAN, std=OPENAI_STD
    )


def student_of(stage: Stage, state: dict[str, Tensor], layout: Any) -> Model:
    student: Model = Clip(stage.layout) if stage.inherit == "auto" else build_model(stage.layout)
    if stage.inherit != "none":
        student.load_state_dict(state if stage.inherit == "auto" else inherit_manual(student, state, stage.layout, layout))
    return student
