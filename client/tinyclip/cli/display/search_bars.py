"""Progress of a search on a terminal: a bar of its trials, and one of each trial that runs."""

from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from tinyclip.cli.display.lines import speed
from tinyclip.cli.display.numbers import duration
from tinyclip.cli.display.texts import one_line
from tinyclip.schemas import Job, Search, SearchPhase

_WIDE_TERMINAL, _WIDE_BAR, _NARROW_BAR = 100, 30, 12
_PHASES = {SearchPhase.MEASURING: "latencies of layouts are measured", SearchPhase.FINALISTS: "finalists are measured"}
_TRIALS, _PHASE = -1, -2
"""Keys of the bars that are no trial's."""


class SearchBars:
    """Redraws the bars of a search for each of its states; they vanish at its end."""

    def __init__(self, out: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_WIDE_BAR if out.width >= _WIDE_TERMINAL else _NARROW_BAR),
            TextColumn("{task.fields[status]}", markup=False),
            console=out,
            transient=True,
        )
        self._tasks: dict[int, TaskID] = {}
        self._state: str | None = None
        self._message = ""

    def show(self, search: Search, jobs: Mapping[int, Job]) -> None:
        """Show a state of a search; `jobs` are those of the trials that run, as far as they are known."""
        if search.state != self._state:
            self._state = search.state
            self.note(f"{search.id} {search.name} {search.state}")
        if search.message not in ("", self._message):
            self.note(search.message)
        self._message = search.message
        self._bars.start()
        running = [trial for trial in search.trials if not trial.state.terminal]
        ended = len(search.trials) - len(running)
        self._show(_TRIALS, "trials", ended / search.post.budget.trials, _summary(search, ended, len(running)))
        for trial in running:
            fraction, status = _progress(jobs.get(trial.number))
            self._show(trial.number, f"trial {trial.number}", fraction, status or str(trial.state))
        measured = _PHASES.get(search.phase) if not search.state.terminal else None
        if measured is not None:
            self._show(_PHASE, "measuring", None, measured)
        self._remove_others({_TRIALS, *([] if measured is None else [_PHASE]), *(trial.number for trial in running)})
        self._bars.refresh()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(one_line(text)))

    def close(self) -> None:
        self._bars.stop()

    def _show(self, key: int, name: str, fraction: float | None, status: str) -> None:
        """Draw a bar; one without a fraction pulses."""
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(name, total=None, status="")
        total = None if fraction is None else 1.0
        self._bars.update(self._tasks[key], total=total, completed=fraction or 0.0, status=status)

    def _remove_others(self, shown: set[int]) -> None:
        for key in self._tasks.keys() - shown:
            self._bars.remove_task(self._tasks.pop(key))


def _summary(search: Search, ended: int, running: int) -> str:
    elapsed = duration(max(0.0, (datetime.now(UTC) - search.created_at).total_seconds()))
    return f"{ended}/{search.post.budget.trials} ended, {running} running  {search.device_hours:.3g} device-hours  {elapsed}"


def _progress(job: Job | None) -> tuple[float | None, str]:
    """Return the fraction of a job that is done, None if it is not known, and what it does."""
    if job is None:
        return None, ""
    progress, stages = job.progress, len(job.stages)
    if not progress.steps or not stages:
        return None, one_line(progress.waiting or str(job.state))
    done = (progress.stage + progress.step / progress.steps) / stages
    return min(done, 1.0), f"{progress.step}/{progress.steps}{speed(job)}"
