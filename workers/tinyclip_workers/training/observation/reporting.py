"""Progress, pruning and evaluations of a stage: events for the control plane and gauges for the Ray dashboard."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from ray.util.metrics import Gauge
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.paths import stage_picture
from tinyclip.schemas import Layout
from torch import Tensor

from tinyclip_workers.data.samples import Sample
from tinyclip_workers.evaluation.compatibility import SharedSpace
from tinyclip_workers.evaluation.predictions import PredictedTasks
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.layout_diagram import layout_svg
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.trainer import StageTrainer, StepResult

log = logging.getLogger(__name__)

REPORT_EVERY_S = 0.5
"""At most one progress event is sent in this time, with the numbers of the last step."""

LOG_EVERY_S = 15.0
"""Time between progress lines in the log."""

EVALUATION_EVERY_S = 60.0
"""Time between the events of an evaluation in progress: an attempt without events for long counts as stalled."""

GAUGES = {"loss": "Training loss", "pairs_per_second": "Image-text pairs a second", "step": "Step of the stage"}


class StageProgress:
    """Progress of a stage, reported by worker 0; on other workers (`events` is `None`) a no-op."""

    def __init__(self, stage: Stage, first_step: int, events: EventWriter | None, *, job: JobDocument) -> None:
        self._stage, self._events = stage, events
        self._started_at, self._first_step, self._last_report = time.monotonic(), first_step, float("-inf")
        self._last_logged = self._started_at
        tags = {"job": job.job, "name": job.name, "stage": stage.name}
        self._gauges: dict[str, Gauge] = {}
        for name, description in GAUGES.items() if events else ():
            self._gauges[name] = Gauge(f"tinyclip_{name}", description=description, tag_keys=tuple(tags))
            self._gauges[name].set_default_tags(tags)

    def step(self, result: StepResult) -> None:
        """Report a step, unless another was reported just before."""
        now = time.monotonic()
        if self._events is None or (now - self._last_report < REPORT_EVERY_S and result.step != self._stage.steps):
            return
        self._last_report = now
        speed = (result.step - self._first_step) * self._stage.batch_size / max(1e-9, now - self._started_at)
        values = {"loss": result.loss, "lr": result.lr, "grad_norm": result.grad_norm, "pairs_per_second": speed}
        values |= {**result.terms, **result.sparsity}
        self._events.send(
            "progress",
            stage=self._stage.index,
            data={
                "step": result.step,
                "steps": self._stage.steps,
                "samples_seen": result.step * self._stage.batch_size,
                "pairs_per_second": speed,
                "eta_seconds": (self._stage.steps - result.step) * self._stage.batch_size / speed,
                "skipped_samples": result.skipped_samples,
                "metrics": {name: value for name, value in values.items() if value == value and abs(value) != float("inf")},
            },
        )
        for name, value in (("loss", result.loss), ("pairs_per_second", speed), ("step", float(result.step))):
            self._gauges[name].set(value)
        if now - self._last_logged >= LOG_EVERY_S or result.step == self._stage.steps:
            self._last_logged = now
            log.info("step %d of %d: loss %.4f, %.0f pairs/s", result.step, self._stage.steps, result.loss, speed)


def report_pruned(run: JobAttempt, stage: Stage, trainer: StageTrainer, events: EventWriter) -> None:
    """Report the pruned student and store its diagram beside the stage's checkpoints."""
    learner = trainer.learner
    path = stage_picture(run.document.job, stage.index, stage.name)
    if isinstance(learner.layout, Layout):
        run.store.write_bytes(path, layout_svg(learner.layout, stage.original).encode())
    events.send(
        "stage.pruned",
        stage=stage.index,
        data=summarize(learner.layout).model_dump(mode="json"),
        message=f"stage {stage.name} pruned at step {trainer.step}: sparsity {learner.sparsity() or 0.0:.3f}",
    )


class StageEvaluator:
    """The evaluation of a stage on worker 0: every task of the spec for the student and, on the same images, its teacher."""

    def __init__(
        self,
        run: JobAttempt,
        stage: Stage,
        teacher: LoadedModel | None,
        device: torch.device,
        events: EventWriter | None,
    ) -> None:
        self._run, self._stage, self._device, self._events = run, stage, device, events
        self._teacher = {} if teacher is None else {"teacher": teacher}

    def evaluate(
        self, student: LoadedModel, step: int, axes_EE: Tensor | None = None, predicted: PredictedTasks | None = None
    ) -> dict[str, dict[str, Any]]:
        """Evaluate a student and report each task. `axes_EE`: those that its embeddings are on, if they are nested.

        `predicted` receives the predictions of zero-shot tasks.
        Returns `{task: {"student": {metric: value}, "teacher": {…} or None}}`. Raises DataError if there is nothing to evaluate.
        """
        found: dict[str, dict[str, Any]] = {}
        spec = self._run.spec
        models = {"student": student, **self._teacher}
        results = evaluate_tasks(
            models,
            spec.evaluation.tasks,
            holdout=spec.data.train.holdout,
            device=self._device,
            on_sample=self._reporter(),
            shared=self._shared_space(student, axes_EE),
            predicted=predicted,
        )
        for name, scores in results.items():
            found[name] = {"student": scores["student"], "teacher": scores.get("teacher")}
            if self._events:
                self._events.send(
                    "evaluation",
                    stage=self._stage.index,
                    data={"task": name, "step": step, **found[name]},
                    message=f"evaluated {name} at step {step} of stage {self._stage.name}",
                )
        return found

    def _shared_space(self, student: LoadedModel, axes_EE: Tensor | None) -> SharedSpace | None:
        """Return the space in which a student is compared with its teacher, if their embeddings have one size."""
        teacher = self._teacher.get("teacher")
        same_size = teacher is not None and teacher.layout.embed_dim == student.layout.embed_dim
        return SharedSpace(axes_EE) if same_size else None

    def _reporter(self) -> Callable[[Sample], None]:
        """Return a function that counts the samples that are read, and reports their number now and then."""
        samples, reported_at = 0, time.monotonic()

        def add(_: Sample) -> None:
            nonlocal samples, reported_at
            samples += 1
            if self._events and time.monotonic() - reported_at >= EVALUATION_EVERY_S:
                reported_at = time.monotonic()
                message = f"evaluating stage {self._stage.name}: {samples:,} samples"
                self._events.send("evaluation.progress", stage=self._stage.index, message=message)

        return add
