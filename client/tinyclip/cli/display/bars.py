"""Progress of a job on a terminal: one bar per stage with loss, speed and remaining time."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tinyclip.cli.display.lines import speed
from tinyclip.schemas import Job, StageState, StageView

_WIDE_TERMINAL, _WIDE_BAR, _NARROW_BAR = 100, 30, 12

_STATUS = {StageState.PENDING: "waiting", StageState.EVALUATING: "evaluating", StageState.SUCCEEDED: "done"}


class Bars:
    """Redraws the bars of a job for each of its states."""

    def __init__(self, out: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_WIDE_BAR if out.width >= _WIDE_TERMINAL else _NARROW_BAR),
            TextColumn("{task.fields[status]}", markup=False),
            console=out,
        )
        self._tasks: dict[int, TaskID] = {}
        self._attempt = 1
        self._state: str | None = None
        self._waiting: str | None = None

    def show(self, job: Job) -> None:
        if job.state != self._state:
            self._state = job.state
            self.note(f"{job.id} {job.name} {job.state}")
        if job.attempt > self._attempt:
            self._attempt = job.attempt
            self.note(f"attempt {job.attempt}")
        if job.progress.waiting and job.progress.waiting != self._waiting:
            self.note(job.progress.waiting)
        self._waiting = job.progress.waiting
        self._bars.start()
        for stage in job.stages:
            self._show_stage(job, stage)
        self._bars.refresh()

    def note(self, text: str) -> None:
        self._bars.console.print(Text(text))

    def close(self) -> None:
        self._bars.stop()

    def _show_stage(self, job: Job, stage: StageView) -> None:
        name = f"{stage.index + 1}/{len(job.stages)} {stage.name}"
        if stage.index not in self._tasks:
            self._tasks[stage.index] = self._bars.add_task(name, total=1.0, status="")
        is_current = stage.state is StageState.RUNNING and stage.index == job.progress.stage
        if is_current and job.progress.steps:
            done, status = job.progress.step / job.progress.steps, f"{job.progress.step}/{job.progress.steps}{speed(job)}"
        else:
            done = float(stage.state in (StageState.EVALUATING, StageState.SUCCEEDED))
            status = _STATUS.get(stage.state, str(stage.state))
        self._bars.update(self._tasks[stage.index], completed=done, status=status)
