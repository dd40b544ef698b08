"""A stage's evaluation: every task of the spec for the student and, on the same images, for its teacher."""

from typing import Any

import torch

from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.runtime.attempt import JobRun
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.stage import Stage


class StageEvaluator:
    """Evaluates on worker 0 and tells the numbers as events."""

    def __init__(
        self,
        run: JobRun,
        stage: Stage,
        teacher: LoadedModel | None,
        device: torch.device,
        events: EventWriter | None,
    ) -> None:
        self._run, self._stage, self._device, self._events = run, stage, device, events
        self._teacher = {} if teacher is None else {"teacher": teacher}

    def score(self, student: LoadedModel, step: int) -> dict[str, dict[str, Any]]:
        """`{task: {"student": {metric: value}, "teacher": {…} or None}}`. Raises DataError: nothing to evaluate."""
        found: dict[str, dict[str, Any]] = {}
        spec = self._run.spec
        models = {"student": student, **self._teacher}
        results = evaluate_tasks(models, spec.evaluation.tasks, holdout=spec.data.train.holdout, device=self._device)
        for task in spec.evaluation.tasks:
            scores = results[task.name]
            found[task.name] = {"student": scores["student"], "teacher": scores.get("teacher")}
            if self._events:
                self._events.send(
                    "evaluation",
                    stage=self._stage.index,
                    data={"task": task.name, "step": step, **found[task.name]},
                    message=f"evaluated {task.name} at step {step} of stage {self._stage.name}",
                )
        return found
