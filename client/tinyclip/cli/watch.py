"""`jobs watch`: shows a job until it ends, as bars on a terminal and as lines elsewhere."""

import collections
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console

from tinyclip._client import Client
from tinyclip._resources import jobs as calls
from tinyclip.cli.display.bars import Bars
from tinyclip.cli.display.console import print_table
from tinyclip.cli.display.lines import Lines
from tinyclip.cli.display.summary import summary_tables
from tinyclip.cli.problems import CANCELLED, FAILED
from tinyclip.schemas import Event, Job, JobState, StudentSummary

_EVENTS_PER_PAGE = 200

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
    """A job's events, read page by page, each once."""

    def __init__(self, client: Client, job_id: str, patience: float) -> None:
        self.teacher: StudentSummary | None = None
        self._client = client
        self._job_id = job_id
        self._retries = client.retries.lasting(patience)
        self._page_token: str | None = None
        self._last_id = 0

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call. The last page is read again, since it grows."""
        while True:
            call = calls.events_page(self._job_id, page_size=_EVENTS_PER_PAGE, page_token=self._page_token)
            page = self._client.send(call, retries=self._retries)
            for event in page.items:
                if event.id > self._last_id:
                    self._last_id = event.id
                    if event.type == "teacher.loaded":
                        self.teacher = StudentSummary.model_validate(event.data)
                    yield event
            if page.next_page_token is None:
                return
            self._page_token = page.next_page_token


def teacher_of(client: Client, job_id: str) -> StudentSummary | None:
    """Return the summary of a job's teacher, from the job's events."""
    history = History(client, job_id, patience=0.0)
    collections.deque(history.new(), maxlen=0)
    return history.teacher
