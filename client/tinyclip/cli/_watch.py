"""`watch`: a job's progress, live on a terminal and line by line elsewhere, until it ends."""

import collections
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console

from tinyclip._client import Client
from tinyclip._resources import jobs
from tinyclip.cli._bars import Bars
from tinyclip.cli._lines import Lines
from tinyclip.cli._problems import CANCELLED, FAILED
from tinyclip.cli._session import print_table
from tinyclip.cli._summary import summary_tables
from tinyclip.schemas import Event, Job, JobState, StudentSummary

_EVENTS_A_PAGE = 200

_SEEN_IN_THE_JOB = (
    "attempt.started", "attempt.stopped", "attempt.submitted", "attempt.succeeded",
    "checkpoint", "evaluation", "job.", "log", "model.", "progress", "stage.", "teacher.",
)
"""Types (or their beginnings) that the job itself shows, or that are not for people."""


class View(Protocol):
    """How progress is shown."""

    def show(self, job: Job) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def watch(client: Client, job_id: str, out: Console, patience: float) -> tuple[Job, StudentSummary | None]:
    """Shows a job until it ends; gives the job and what its teacher looks like. Raises what the client raises."""
    view: View = Bars(out) if out.is_terminal else Lines(out)
    history = History(client, job_id, patience)
    try:
        for job in client.jobs.watch(job_id, patience=patience):
            for event in history.new():
                if _is_worth_a_line(event):
                    view.note(f"{event.type}: {event.message}")
            view.show(job)
    finally:
        view.close()
    return job, history.teacher


def conclude(out: Console, job: Job, teacher: StudentSummary | None) -> int:
    """Prints how a job has ended; gives the exit code."""
    if job.state is JobState.SUCCEEDED:
        if any(stage.student or stage.evaluation for stage in job.stages):
            for made in summary_tables(out, job, teacher):
                print_table(out, made)
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
        self._patient = client.retries.lasting(patience)
        self._page_token: str | None = None
        self._last_id = 0

    def new(self) -> Iterator[Event]:
        """Events since the last time. The last page is read again, since it grows."""
        while True:
            call = jobs.events_page(self._job_id, page_size=_EVENTS_A_PAGE, page_token=self._page_token)
            page = self._client.send(call, retries=self._patient)
            for event in page.items:
                if event.id > self._last_id:
                    self._last_id = event.id
                    self._remember(event)
                    yield event
            if page.next_page_token is None:
                return
            self._page_token = page.next_page_token

    def _remember(self, event: Event) -> None:
        if event.type == "teacher.loaded":
            self.teacher = StudentSummary.model_validate(event.data)


def teacher_of(client: Client, job_id: str) -> StudentSummary | None:
    """What a job's teacher looks like, from its history."""
    history = History(client, job_id, patience=0.0)
    collections.deque(history.new(), maxlen=0)
    return history.teacher


def _is_worth_a_line(event: Event) -> bool:
    return bool(event.message) and not event.type.startswith(_SEEN_IN_THE_JOB)
