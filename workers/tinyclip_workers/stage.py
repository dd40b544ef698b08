"""A stage with everything decided: what the loop needs to know, and nothing that it has to look up."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.spec import Objective, OptimizerSpec, StageSpec, TrainLength

from tinyclip_workers.architecture import resolve_layout


@dataclass(frozen=True)
class Stage:
    """One stage of a job, resolved."""

    index: int
    name: str
    inherit: str
    layout: Layout
    steps: int
    batch_size: int
    """Global."""
    objective: Objective
    optimizer: OptimizerSpec

    def to_json(self) -> dict[str, Any]:
        """As plain data, for the way to a worker."""
        models = {name: getattr(self, name).model_dump(mode="json") for name in ("layout", "objective", "optimizer")}
        return {**asdict(self), **models}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Stage":
        return cls(
            **{
                **data,
                "layout": Layout.model_validate(data["layout"]),
                "objective": Objective.model_validate(data["objective"]),
                "optimizer": OptimizerSpec.model_validate(data["optimizer"]),
            }
        )


def resolve_stages(spec: JobSpec, teacher: Layout | None, samples_per_epoch: int) -> list[Stage]:
    """Every stage of a spec; what a stage leaves open comes from the spec, what its student leaves open from its parent.

    Raises ImpossibleStudent.
    """
    stages: list[Stage] = []
    parent = teacher
    for index, stage in enumerate(spec.stages):
        assert stage.student is not None  # the planner has refused what this version cannot do
        layout = resolve_layout(stage.student, parent)
        stages.append(_stage(index, stage, spec, layout, samples_per_epoch))
        parent = layout
    return stages


def _stage(index: int, stage: StageSpec, spec: JobSpec, layout: Layout, samples_per_epoch: int) -> Stage:
    batch_size = stage.batch_size or spec.batch_size
    return Stage(
        index=index,
        name=stage.name,
        inherit=stage.inherit,
        layout=layout,
        steps=steps_of(stage.train, batch_size, samples_per_epoch),
        batch_size=batch_size,
        objective=stage.objective or spec.objective,
        optimizer=stage.optimizer or spec.optimizer,
    )


def steps_of(length: TrainLength, batch_size: int, samples_per_epoch: int) -> int:
    """Optimizer steps of a length given in steps, samples or epochs; at least one."""
    if length.steps is not None:
        return length.steps
    samples = length.samples if length.samples is not None else (length.epochs or 0) * samples_per_epoch
    return max(1, math.ceil(samples / batch_size))
