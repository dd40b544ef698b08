"""The cost of a stage in device-hours: passes of its models, from an assumed speed."""

from collections.abc import Sequence

from tinyclip.schemas import JobSpec, Layout, StudentSummary
from tinyclip.schemas.layouts import AnyLayout
from tinyclip.schemas.spec import StageSpec

from tinyclip_workers.inheritance.depth import removal_passes
from tinyclip_workers.model.summary import image_macs, text_macs
from tinyclip_workers.training.auto_settings.learning_rate import RATES, steps_per_rate
from tinyclip_workers.training.calibration import CALIBRATION_PAIRS
from tinyclip_workers.training.stage import is_calibrated

SUSTAINED_FLOPS = {"cpu": 60e9, "cuda": 100e12}
"""Assumed speed of training, in floating point operations a second: fp32 on one core (small towers reach 80 to 95 G on a
recent x86 core), bf16 on one data-centre GPU at about a tenth of its peak. An order of magnitude."""

TRAINING_PASSES = 3
"""A forward pass and its backward pass, which costs two."""
SEARCH_PASSES = {"joint": TRAINING_PASSES, "frozen": 2, "importance": 0}
"""Passes of a step of a search: the gradients of weights, a third of a training step, are not needed if they are frozen."""
CALIBRATION_PASSES = 14
"""Passes of the parent that cut a student by importance: principal axes, importance and least squares. Depth costs more."""


def stage_hours(
    spec: JobSpec, index: int, steps: int, student: StudentSummary, parent: AnyLayout, teacher_macs: Sequence[int], device: str
) -> float:
    """Estimate the device-hours of a stage. `teacher_macs` has all teachers', `parent` the layout to inherit from."""
    stage = spec.stages[index]
    optimizer = stage.optimizer or spec.optimizer
    parent_macs = image_macs(parent) + text_macs(parent)  # a search runs all of its parent
    search, search_passes = (min(stage.prune.cut_step, steps), SEARCH_PASSES[stage.prune.search]) if stage.prune else (0, 0)
    tested = len(RATES) * steps_per_rate(steps - search) if optimizer.lr == "auto" else 0
    student_macs = search_passes * search * parent_macs + TRAINING_PASSES * (steps - search + tested) * student.macs
    macs = (stage.batch_size or spec.batch_size) * student_macs
    if is_calibrated(stage) and isinstance(parent, Layout) and isinstance(student.layout, Layout):
        macs += CALIBRATION_PAIRS * (CALIBRATION_PASSES * parent_macs + _depth_macs(stage, parent, student.layout))
    live = spec.data.train.reinforcement is None
    return _hours(macs, spec, device) + (teacher_hours(spec, index, steps, teacher_macs, device) if live else 0.0)


def teacher_hours(spec: JobSpec, index: int, steps: int, teacher_macs: Sequence[int], device: str) -> float:
    """Estimate the device-hours of a stage's teachers, which a reinforcement saves."""
    stage = spec.stages[index]
    objective, optimizer = stage.objective or spec.objective, stage.optimizer or spec.optimizer
    running = teacher_macs if objective.uses_every_teacher() else teacher_macs[:1] if objective.teacher_terms() else []
    search = min(stage.prune.cut_step, steps) if stage.prune else 0
    tested = len(RATES) * steps_per_rate(steps - search) if optimizer.lr == "auto" else 0
    return _hours((stage.batch_size or spec.batch_size) * (steps + tested) * sum(running), spec, device)


def _hours(macs: float, spec: JobSpec, device: str) -> float:
    speed = SUSTAINED_FLOPS[device] * (spec.resources.cpus_per_worker if device == "cpu" else 1)
    return 2 * macs / speed / 3600


def _depth_macs(stage: StageSpec, parent: Layout, student: Layout) -> int:
    """Count, for a calibration pair, the passes by which a shallower student's blocks are selected."""
    if stage.inherit != "manual" and (stage.prune is None or stage.prune.layers is None):
        return 0
    fixed = 1 if parent.image.kind == "resnet" else 0  # the first block of each stage stays
    stacks = zip(parent.image.layers, student.image.layers, strict=False)  # towers of two kinds are an error of the plan
    image_passes = sum(removal_passes(there - fixed, own - fixed) for there, own in stacks)
    return image_passes * image_macs(parent) + removal_passes(parent.text.layers, student.text.layers) * text_macs(parent)
