"""The job spec: what a user says about the student to be made (the wire contract's `JobSpec`)."""

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import Request
from tinyclip.schemas.spec.data import DataSpec, EvaluationSpec, Name
from tinyclip.schemas.spec.stages import Objective, OptimizerSpec, StageSpec, Temperature


class TeacherSpec(Request):
    """Where the teacher comes from."""

    model: str
    """open_clip architecture | hf-hub:ORG/NAME | local-dir:PATH_OR_URI | registry:NAME@ALIAS_OR_VERSION."""
    pretrained: str | None = None
    """open_clip tag, or a path or URI of weights; omitted for the last three forms."""


class WeightedTeacher(TeacherSpec):
    """One of several teachers."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its part in the mean of affinities; only the proportion to the others' counts."""


class TeacherAt(NamedTuple):
    """A teacher and where the spec has it."""

    pointer: str
    spec: TeacherSpec
    share: float
    """Its part in the mean of affinities; all shares add up to 1."""


class WorkerRange(Request):
    min: int = Field(ge=1)
    max: int = Field(ge=1)


class Resources(Request):
    workers: Annotated[int, Field(ge=1)] | WorkerRange = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)


class CheckpointSpec(Request):
    every_steps: int = Field(default=500, ge=1)
    keep: int = Field(default=3, ge=1)


class JobSpec(Request):
    """Everything that decides the student. The smallest has name, teacher, data.train.shards and one stage."""

    spec_version: Literal[1] = 1
    name: Name
    labels: dict[str, str] = {}
    teacher: TeacherSpec | None = None
    """Omitted with `objective: {affinity: 0, contrastive: 1}`: a plain CLIP is trained."""
    teachers: list[WeightedTeacher] = []
    """Instead of `teacher`: several. Students inherit from the first, are evaluated next to it and have it as the teacher of all
    terms but `affinity`, whose target is the weighted mean of all teachers' affinities."""
    data: DataSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    stages: list[StageSpec] = Field(min_length=1)
    objective: Objective = Objective()
    temperature: Temperature = Temperature()
    optimizer: OptimizerSpec = OptimizerSpec()
    batch_size: int = Field(default=256, ge=1)
    """Global; split over the workers by the engine."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Pairs that a worker holds in memory at once; the gradient is that of the whole batch. Costs one more forward pass."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    resources: Resources = Resources()
    checkpoint: CheckpointSpec = CheckpointSpec()
    max_attempts: int = Field(default=3, ge=1, le=100)
    seed: int = 0

    @property
    def first_teacher(self) -> TeacherSpec | None:
        """The teacher, or the first of several."""
        return self.teachers[0] if self.teachers else self.teacher

    def every_teacher(self) -> list[TeacherAt]:
        """The teacher or all of several, the first one first."""
        total = sum(teacher.weight for teacher in self.teachers)
        several = [TeacherAt(f"/teachers/{i}", teacher, teacher.weight / total) for i, teacher in enumerate(self.teachers)]
        return several if self.teacher is None else [TeacherAt("/teacher", self.teacher, 1.0)]

    @model_validator(mode="before")
    @classmethod
    def _objective_of_the_named_terms_only(cls, data: Any) -> Any:
        """`objective: {contrastive: 1}` means contrastive alone: naming terms names all of them."""
        if isinstance(data, dict):
            for holder in [data, *(s for s in data.get("stages") or [] if isinstance(s, dict))]:
                objective = holder.get("objective")
                if isinstance(objective, dict) and objective.keys() - {"clusters"} and "affinity" not in objective:
                    objective["affinity"] = 0.0
        return data

    @model_validator(mode="after")
    def _what_needs_a_teacher_has_one(self) -> Self:
        if self.teacher is not None and self.teachers:
            raise ValueError("give either teacher or teachers, not both; the first of teachers is the one to inherit from")
        if self.first_teacher is not None:
            return self
        for index, stage in enumerate(self.stages):
            taught = (stage.objective or self.objective).taught()
            if taught:
                what = "mimics a teacher's affinity" if taught == ["affinity"] else f"has {taught[0]} in its objective"
                raise ValueError(
                    f"stage {index} ({stage.name}) {what} but the spec has no teacher; "
                    "add teacher: {model: …} or set objective: {contrastive: 1}"
                )
            if index == 0 and stage.inherit != "none":
                raise ValueError("stage 0 inherits from the teacher but the spec has none; add teacher or use inherit: none")
        return self
