"""Progress of a job without a terminal: a line for each notable change."""

import time

from rich.console import Console

from tinyclip.cli.display.numbers import count, duration, number, percent
from tinyclip.schemas import Job, StageState, StageView

_LINES_PER_STAGE = 10
_QUIET_SECONDS = 60.0
"""A line is printed at least this often during training."""

HEADLINES = {"top1": "top-1", "top5": "top-5", "text_to_image_r1": "R@1", "text_to_image_r10": "R@10"}
"""Short names of metrics."""


class Lines:
    """Prints what is new in each state of a job."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._state: tuple[str, int] | None = None
        self._waiting: str | None = None
        self._printed_sizes: set[tuple[int, bool]] = set()
        self._printed_step: dict[int, tuple[int, float]] = {}
        self._printed_scores: set[tuple[int, str, str]] = set()

    def show(self, job: Job) -> None:
        if self._state != (job.state, job.attempt):
            self._state = (job.state, job.attempt)
            attempt = f" (attempt {job.attempt})" if job.attempt > 1 and not job.state.terminal else ""
            self.note(f"{job.id} {job.name} {job.state}{attempt}")
        if job.progress.waiting and job.progress.waiting != self._waiting:
            self.note(job.progress.waiting)
        self._waiting = job.progress.waiting
        for stage in job.stages:
            self._show_stage(job, stage)

    def note(self, text: str) -> None:
        self._out.print(text, markup=False)

    def close(self) -> None:
        """Do nothing: no line is open."""

    def _show_stage(self, job: Job, stage: StageView) -> None:
        name = f"stage {stage.index + 1}/{len(job.stages)} {stage.name}"
        student = stage.student
        if stage.state is not StageState.PENDING and student and (stage.index, student.estimated) not in self._printed_sizes:
            self._printed_sizes.add((stage.index, student.estimated))
            about = "about " if student.estimated else ""
            table = count(student.text_params - student.text_params_without_embedding)
            self.note(
                f"{name}: {about}{count(student.image_params)} image params, "
                f"{count(student.text_params)} text params of which {table} token embedding, {count(student.macs)} MACs"
            )
        if stage.state is StageState.RUNNING and stage.index == job.progress.stage:
            self._show_progress(job, name)
        for task, scores in stage.evaluation.items():
            self._show_scores(stage, f"{name}: {task}", task, scores.student, scores.teacher)

    def _show_progress(self, job: Job, name: str) -> None:
        progress, now = job.progress, time.monotonic()
        if progress.step == 0 or progress.steps == 0:
            return
        last_tenth, at = self._printed_step.get(progress.stage, (-1, float("-inf")))
        tenth = progress.step * _LINES_PER_STAGE // progress.steps
        if tenth == last_tenth and now - at < _QUIET_SECONDS:
            return
        self._printed_step[progress.stage] = (tenth, now)
        self.note(f"{name}: step {progress.step}/{progress.steps}{speed(job)}")

    def _show_scores(
        self, stage: StageView, name: str, task: str, student: dict[str, object], teacher: dict[str, object] | None
    ) -> None:
        of_teacher = {metric: f" (teacher {_score(value)})" for metric, value in (teacher or {}).items()}
        text = ", ".join(
            f"{label} {_score(student[metric])}{of_teacher.get(metric, '')}"
            for metric, label in HEADLINES.items() if metric in student
        )
        if text and (stage.index, task, text) not in self._printed_scores:
            self._printed_scores.add((stage.index, task, text))
            self.note(f"{name} {text}")


def speed(job: Job) -> str:
    """Return `  loss 1.234  KL 0.31  272 pairs/s  eta 1m12s`, as far as it is known."""
    progress = job.progress
    metrics = job.stages[progress.stage].metrics if progress.stage < len(job.stages) else {}
    last, agreement = metrics.get("last", {}), metrics.get("agreement", {})
    loss = f"  loss {number(float(last['loss']))}" if "loss" in last else ""
    loss += f"  KL {agreement['kl']:.3g}" if "kl" in agreement else ""
    pairs = f"  {progress.pairs_per_second:.0f} pairs/s" if progress.pairs_per_second else ""
    eta = f"  eta {duration(progress.eta_seconds)}" if progress.eta_seconds is not None else ""
    return loss + pairs + eta


def _score(value: object) -> str:
    return percent(value) if isinstance(value, float) else str(value)
