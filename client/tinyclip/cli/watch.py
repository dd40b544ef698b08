"""`jobs watch`: shows a job until it ends, as bars on a terminal and as lines elsewhere."""

import collections
import functools
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console

from tinyclip._client import Client
from tinyclip._resources import jobs as calls
from tinyclip.cli.display.bars import Bars
from tinyclip.cli.display.console import print_table
from tinyclip.cli.display.lines import Lines
from tinyclip.cli.display.summary import summary_tables
from tinyclip.cli.history import EVENTS_PER_PAGE, NewItems
from tinyclip.cli.problems import CANCELLED, FAILED
from tinyclip.schemas import Event, Job, JobState, StudentSummary

_SHOWN_BY_THE_JOB = (
    "agreement.measured", "attempt.started", "attempt.stopped", "attempt.submitted", "attempt.succeeded",
    "attempt.pending", "checkpoint", "evaluation", "job.", "log", "model.", "progress", "stage.", "teacher.", "worker_group.",
)
"""Event types, or prefixes of them, that repeat what the job shows or are not for people."""


class View(Protocol):
    """A display of a job's progress."""

    def show(self, job: Job) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def watch(client: Client, job_id: str, out: Console, patience: float) -> tuple[Job, StudentSummary | None]:
    """Show a job until it ends; return it and the summary of its teacher. Raises the client's errors."""
    view: View = Bars(out) if out.is_terminal else Lines(out)
    history = History(client, job_id, patience)
    try:
        for job in client.jobs.watch(job_id, patience=patience):
            for event in history.new():
                if event.message and not event.type.startswith(_SHOWN_BY_THE_JOB):
                    view.note(f"{event.type}: {event.message}")
            view.show(job)
    finally:
        view.close()
    return job, history.teacher


def conclude(out: Console, job: Job, teacher: StudentSummary | None) -> int:
    """Print the result of a job that has ended; return the exit code."""
    if job.state is JobState.SUCCEEDED:
        if any(stage.student or stage.evaluation for stage in job.stages):
            for table in summary_tables(out, job, teacher):
                print_table(out, table)
        if job.model is not None:
            out.print(f"model {job.model.name}@{job.model.version}", markup=False)
        return 0
    if job.error is not None:
        where = "" if job.error.stage is None else f" in stage {job.error.stage + 1} ({job.stages[job.error.stage].name})"
        out.print(f"{job.id} {job.state}{where}: {job.error.code}", markup=False)
        out.print(f"  {job.error.message}", markup=False)
    return CANCELLED if job.state is JobState.CANCELLED else FAILED


class History:
    """A job's events, and the summary of its teacher that is among them."""

    def __init__(self, client: Client, job_id: str, patience: float) -> None:
        self.teacher: StudentSummary | None = None
        self._events = NewItems(client, functools.partial(calls.events_page, job_id, page_size=EVENTS_PER_PAGE), patience)

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call."""
        for event in self._events.new():
            if event.type == "teacher.loaded":
                self.teacher = StudentSummary.model_validate(event.data)
            yield event


def teacher_of(client: Client, job_id: str) -> StudentSummary | None:
    """Return the summary of a job's teacher, from the job's events."""
    history = History(client, job_id, patience=0.0)
    collections.deque(history.new(), maxlen=0)
    return history.teacher
