"""Evaluations of models on tasks, after training."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from tinyclip.schemas._base import Request, Response, Timestamp
from tinyclip.schemas.addresses import ModelName
from tinyclip.schemas.jobs import Scores
from tinyclip.schemas.spec import EvaluationTask


class EvaluationPost(Request):
    """A request for an evaluation. Models are registered ones (`NAME@VERSION`, `NAME@ALIAS`, `NAME`, also after `registry:`),
    open_clip's (`ARCHITECTURE/TAG`, as `ViT-B-32/laion2b_s34b_b79k`), `hf-hub:ORG/NAME` or `local-dir:PATH_OR_URI`."""

    model: ModelName = Field(min_length=1, max_length=1000)
    against: ModelName | None = Field(default=None, min_length=1, max_length=1000)
    """Another model to evaluate on the same images, such as the teacher."""
    tasks: list[EvaluationTask] = Field(min_length=1, max_length=200)
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """The `data.train.holdout` of the training, for tasks with `subset: holdout`."""


class EvaluationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def terminal(self) -> bool:
        """True when the evaluation has its results, or the reason why there are none."""
        return self in (EvaluationState.SUCCEEDED, EvaluationState.FAILED)


class EvaluationError(Response):
    """The reason of a failure; `pointer` names the posted field that caused it, if there is one."""

    code: str
    message: str
    pointer: str | None = None
    value: Any = None


class Evaluation(Response):
    id: str
    model: str
    """The evaluated model; a registered one with its version."""
    against: str | None
    tasks: list[EvaluationTask]
    holdout: float
    state: EvaluationState
    progress: float = 0.0
    message: str = ""
    warnings: list[str] = []
    results: dict[str, Scores] = {}
    """By task, once it has succeeded: `student` is the model, `teacher` the one of `against`."""
    error: EvaluationError | None = None
    ray_submission_id: str | None
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None
