"""The start of a stage on every worker: its teachers, its student, and the pairs that the student is cut by."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load as from_safetensors
from tinyclip.artifacts.documents import StoredTeacher
from tinyclip.schemas.spec import TeacherAt
from torch import Tensor

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.inheritance.students import Calibration
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.sources import find_teacher, load_teacher, of_parent
from tinyclip_workers.model.libraries.own_towers import own_state
from tinyclip_workers.model.masks import Tower
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary_change import with_vocabulary
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.calibration import calibration_of, teacher_calibration
from tinyclip_workers.training.distributed import rank
from tinyclip_workers.training.objective.nested import principal_axes
from tinyclip_workers.training.stage import Parent, Stage, build_student, inheritable_layout
from tinyclip_workers.training.teachers.frozen import FrozenTeacher, describe_teacher, freeze_teachers
from tinyclip_workers.training.vocabulary import check_student_tokenizer, tokenizer_of
from tinyclip_workers.versions.ancestry import SELECTED_BLOCKS


@dataclass(frozen=True)
class Pieces:
    """Teachers, student and calibration of a stage."""

    original: LoadedModel | None
    """The teacher, or the first of several: the one to inherit from and to evaluate."""
    teachers: list[FrozenTeacher]
    described: list[StoredTeacher]
    """For each teacher, everything that its embeddings depend on."""
    student: LoadedModel
    calibration: Callable[[], Calibration] | None
    """Pairs and targets to cut the student by; `None` without a parent."""
    axes_EE: Tensor | None = None
    """Principal axes of the teacher's embeddings, for nested ones; `None` if they are in a checkpoint."""


def load_pieces(
    run: JobAttempt, stage: Stage, index: DatasetIndex, device: torch.device, *, fresh: bool, first_only: bool = False
) -> Pieces:
    """Load the teachers and build the student; unless `fresh`, without its weights, which are in a checkpoint.

    `first_only`: load no teacher but the first one.

    Raises TeacherError, DataError, ImpossibleInheritance, and RuntimeError if the previous stage's student is missing.
    """
    seed, at = run.spec.seed, _teachers(run, stage)[: 1 if first_only else None]
    originals = [load_teacher(teacher.spec, teacher.pointer) for teacher in at]
    original = originals[0] if originals else None
    tokenizer = tokenizer_of(run)
    source = None if tokenizer is None else tokenizer.source
    named = of_parent(run.spec, find_teacher)
    colors = named or original
    student = LoadedModel(
        model=build_student(stage, seed, None),
        layout=stage.layout,
        tokenizer=make_tokenizer(stage.layout, source),
        image_mean=colors.image_mean if colors else OPENAI_MEAN,
        image_std=colors.image_std if colors else OPENAI_STD,
        name=stage.name,
        digest="",
        tokenizer_source=source,
    )
    if run.spec.tokenizer is not None:
        check_student_tokenizer(student)
    parent = None if stage.inherit == "none" else _parent(run, stage, original, device)
    calibration = None if parent is None else calibration_of(run.spec, index, stage.index, student, parent, original)
    if fresh and parent is not None:
        selected: dict[Tower, list[int]] = {}
        student = replace(student, model=build_student(stage, seed, parent, calibration, selected))
        if selected and rank() == 0:
            run.keep_selection(stage.index, SELECTED_BLOCKS, {str(tower): blocks for tower, blocks in selected.items()})
    shares = [teacher.share for teacher in at]
    described = [describe_teacher(model, share) for model, share in zip(originals, shares, strict=True)]
    languages = [teacher.spec.language for teacher in at]
    teachers = freeze_teachers(originals, shares, run.spec.temperature.teacher, student, languages)
    axes_EE = _axes(run, stage, index, student, original, calibration, device) if fresh and original else None
    return Pieces(original, teachers, described, student, calibration, axes_EE)


def _axes(
    run: JobAttempt,
    stage: Stage,
    index: DatasetIndex,
    student: LoadedModel,
    original: LoadedModel,
    calibration: Callable[[], Calibration] | None,
    device: torch.device,
) -> Tensor | None:
    """Return the principal axes that nested embeddings are compared on: those of the stage before, or new ones."""
    if not stage.embedding_sizes or stage.layout.embed_dim != original.layout.embed_dim:
        return None
    before = run.finished_stage(stage.index - 1) if stage.index and stage.inherit != "none" else None
    if before is not None and before.axes_EE is not None:
        return before.axes_EE
    if calibration is None:
        calibration = teacher_calibration(run.spec, index, stage.index, student, original, device)
    return principal_axes(part for parts in calibration().targets.values() for part in parts)


def _teachers(run: JobAttempt, stage: Stage) -> list[TeacherAt]:
    """Return all teachers if the stage mimics affinities; other terms use only the first."""
    teachers = run.spec.every_teacher()
    return teachers if stage.objective.uses_every_teacher() else teachers[:1]


def _parent(run: JobAttempt, stage: Stage, original: LoadedModel | None, device: torch.device) -> Parent:
    """Load the student's parent: the teacher or `inherit_from` in the first stage, then the previous stage's student."""
    if stage.index == 0:
        first = of_parent(run.spec, load_teacher) or original
        assert first is not None  # the spec's schema requires one of the two here
        layout = inheritable_layout(first.layout)
        state = own_state(first.layout, first.model.state_dict())
        if (tokenizer := tokenizer_of(run)) is not None and tokenizer.origins is not None:
            return Parent(*with_vocabulary(state, layout, tokenizer.origins, run.spec.seed), device)
        return Parent(state, layout, device)
    before = run.finished_stage(stage.index - 1)
    if before is None:
        raise RuntimeError(f"the student is missing from {run.stage_folder(stage.index - 1)}")
    return Parent(from_safetensors(before.weights), inheritable_layout(before.layout), device)
