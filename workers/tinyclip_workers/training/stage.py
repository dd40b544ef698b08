"""A stage with everything decided: what the loop needs to know, and nothing that it has to look up."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.spec import Objective, OptimizerSpec, PruneSpec, StageSpec, TrainLength

from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.tower_layouts import ImpossibleStudent


@dataclass(frozen=True)
class Stage:
    """One stage of a job, resolved."""

    index: int
    name: str
    inherit: str
    layout: Layout
    """Of the student as the stage begins: an automatic stage begins with all of its parent."""
    steps: int
    batch_size: int
    """Global."""
    objective: Objective
    optimizer: OptimizerSpec
    parent: Layout | None = None
    """What the student inherits from: the teacher, or the student of the stage before."""
    prune: PruneSpec | None = None
    original: Layout | None = None
    """Of an automatic stage: what its sparsity is relative to, which is where the first such stage in a row began."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, for the way to a worker."""
        models = {name: value.model_dump(mode="json") for name, value in vars(self).items() if isinstance(value, BaseModel)}
        return {**asdict(self), **models}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Stage":
        kinds: dict[str, type[BaseModel]] = {
            "layout": Layout, "objective": Objective, "optimizer": OptimizerSpec, "parent": Layout, "prune": PruneSpec,
            "original": Layout,
        }
        models = {name: kind.model_validate(data[name]) for name, kind in kinds.items() if data[name] is not None}
        return cls(**{**data, **models})


def resolve_stages(spec: JobSpec, teacher: Layout | None, samples_per_epoch: int) -> list[Stage]:
    """Every stage of a spec that has no automatic ones: of what follows those, the layout is not known beforehand.

    Raises ImpossibleStudent.
    """
    stages: list[Stage] = []
    for index in range(len(spec.stages)):
        before = stages[-1] if stages else None
        stages.append(resolve_stage(spec, index, before.layout if before else teacher, before, samples_per_epoch))
    return stages


def resolve_stage(
    spec: JobSpec, index: int, parent: Layout | None, before: Stage | None, samples_per_epoch: int
) -> Stage:
    """A stage whose parent is there; what it leaves open comes from the spec, what its student leaves open from the parent.

    `before` is the stage before it, None for the first. Raises ImpossibleStudent.
    """
    stage = spec.stages[index]
    batch_size, optimizer = stage.batch_size or spec.batch_size, stage.optimizer or spec.optimizer
    original = None
    if stage.prune is not None:
        original = before.original if before is not None and before.original is not None else parent
        # The search runs while the learning rate warms up (METHOD section 5).
        optimizer = optimizer.model_copy(update={"warmup_steps": stage.prune.prune_step})
    return Stage(
        index=index,
        name=stage.name,
        inherit=stage.inherit,
        layout=_first_layout(stage, parent),
        steps=steps_of(stage.train, batch_size, samples_per_epoch),
        batch_size=batch_size,
        objective=stage.objective or spec.objective,
        optimizer=optimizer,
        parent=parent,
        prune=stage.prune,
        original=original,
    )


def _first_layout(stage: StageSpec, parent: Layout | None) -> Layout:
    if stage.student is not None:
        return resolve_layout(stage.student, parent)
    if parent is None:
        raise ImpossibleStudent("inherit", stage.inherit, "there is no model to inherit from; add a teacher")
    return parent


def steps_of(length: TrainLength, batch_size: int, samples_per_epoch: int) -> int:
    """Optimizer steps of a length given in steps, samples or epochs; at least one."""
    if length.steps is not None:
        return length.steps
    samples = length.samples if length.samples is not None else (length.epochs or 0) * samples_per_epoch
    return max(1, math.ceil(samples / batch_size))
