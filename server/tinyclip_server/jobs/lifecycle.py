"""The state machine of jobs, stages and attempts: the legal transitions, and the only functions that make them.

A transition and its event belong to one transaction; only this module sets a state or numbers an event. The guards at the
end enforce it: an illegal transition raises `IllegalState`, wherever it is made.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobError, JobState, StageState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, EventRow, JobRow, StageRow
from tinyclip_server.problems import Conflict

ABANDONED_SECONDS = 600.0
"""Time without a lease, or after its end, after which an attempt on another cluster is no longer left to that cluster's servers:
longer than an upgrade takes."""


class AttemptOutcome(StrEnum):
    """How an attempt ended. It is set once; a running attempt has none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """The attempt reported this outcome itself, as the two above."""
    LOST = "lost"
    """The attempt ended without reporting an outcome, or Ray no longer knows it."""
    STALLED = "stalled"
    """The attempt made no progress for too long; its processes may still run."""
    TIMED_OUT = "timed_out"
    """The job was on the cluster for too long."""
    WITHDRAWN = "withdrawn"
    """The attempt was stopped before it was submitted to Ray."""
    INTERRUPTED = "interrupted"
    """The attempt ended with its whole cluster, or Ray never started it."""

    @property
    def self_reported(self) -> bool:
        """Return whether the attempt reported the outcome as its last event; a process of any other attempt may still run."""
        return self in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.STOPPED)


S, T = JobState, StageState

JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset({S.STARTING, S.PAUSED, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.STARTING, S.QUEUED, S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.RUNNING: frozenset({S.STARTING, S.QUEUED, S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSING: frozenset({S.PAUSED, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.SUCCEEDED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}
"""STARTING follows STARTING and RUNNING when an attempt failed and the next one begins; QUEUED follows when the embedded cluster
was stopped. PAUSING and CANCELLING become SUCCEEDED if the last attempt succeeds meanwhile. Terminal states have no transitions:
a retry is a new job."""

STAGE_TRANSITIONS: Mapping[StageState, frozenset[StageState]] = {
    T.PENDING: frozenset({T.RUNNING, T.EVALUATING, T.SUCCEEDED, T.CANCELLED}),
    T.RUNNING: frozenset({T.EVALUATING, T.SUCCEEDED, T.FAILED, T.CANCELLED}),
    T.EVALUATING: frozenset({T.RUNNING, T.SUCCEEDED, T.FAILED, T.CANCELLED}),
    T.SUCCEEDED: frozenset(),
    T.FAILED: frozenset(),
    T.CANCELLED: frozenset(),
}
"""RUNNING follows EVALUATING when the worker group was restarted. PENDING becomes SUCCEEDED if an attempt wrote the student but
died before it reported that: the next attempt adopts the student."""

ON_CLUSTER = (S.STARTING, S.RUNNING, S.PAUSING, S.CANCELLING)
"""States in which an attempt may exist."""
ENDED = tuple(state for state in JobState if state.terminal)

NEXT_STEP: Mapping[JobState, str] = {
    S.QUEUED: "it starts when it is its turn",
    S.STARTING: "cancel or pause it first",
    S.RUNNING: "cancel or pause it first",
    S.PAUSING: "wait until it is paused",
    S.PAUSED: "resume or cancel it",
    S.CANCELLING: "wait until it is cancelled, and retry it then",
    S.SUCCEEDED: "clone it to train again",
    S.FAILED: "retry it to go on from its last checkpoint",
    S.CANCELLED: "retry it to go on from its last checkpoint",
}
"""What a user can do instead of an illegal transition, by the job's state."""


def can_become(job: JobRow, state: JobState) -> bool:
    """Return whether a transition of a job is legal."""
    return state in JOB_TRANSITIONS[JobState(job.state)]


def change_state(
    session: AsyncSession, job: JobRow, state: JobState, message: str, *, data: dict[str, Any] | None = None
) -> None:
    """Change a job's state and record `job.<state>`. Raises Conflict for an illegal transition."""
    if not can_become(job, state):
        message = f"job {job.id} is {job.state}: it cannot become {state.value}; {NEXT_STEP[S(job.state)]}"
        raise Conflict(message, code="illegal_transition")
    job.state = state
    job.revision += 1
    show_waiting(job, None)
    if state.terminal:
        job.finished_at = now()
        job.lease_owner, job.lease_until = "", None
        _end_stages(job, state)
    if state not in (S.PAUSING, S.CANCELLING):
        job.stop_requested_at = None
    record(session, job, f"job.{state.value}", message, attempt=job.attempt or None, data=data)


def change_stage(stage: StageRow, state: StageState) -> None:
    """Change a stage's state; an illegal transition, such as a repeated one, is a no-op."""
    if state in STAGE_TRANSITIONS[StageState(stage.state)]:
        stage.state = state


def show_waiting(job: JobRow, message: str | None) -> None:
    """Set the resources that a job waits for, or that it waits for none. Its next progress and its next state reset this."""
    if job.progress.get("waiting") != message:
        job.progress = {**job.progress, "waiting": message}


def record(
    session: AsyncSession,
    job: JobRow,
    type: str,
    message: str,
    *,
    attempt: int | None = None,
    stage: int | None = None,
    data: dict[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Append an event to a job's history, which changes the version of the job."""
    job.last_event += 1
    session.add(
        EventRow(
            job_id=job.id, seq=job.last_event, type=type, message=message, attempt=attempt, stage=stage, data=data or {},
            created_at=at or now(),
        )
    )


def first_event(job: JobRow, message: str, data: dict[str, Any] | None) -> EventRow:
    """Return the event `job.created` of a job that is not in the database yet."""
    job.last_event = 1
    return EventRow(job_id=job.id, seq=1, type="job.created", message=message, data=data or {}, created_at=job.created_at)


def begin_attempt(session: AsyncSession, job: JobRow, why: str) -> AttemptRow:
    """Begin the next attempt. Its number is the new fence, at which processes of superseded attempts exit."""
    job.attempt += 1
    attempt = AttemptRow(
        job_id=job.id, number=job.attempt, ray_submission_id=f"tc-{job.id}-a{job.attempt}", submitted=False, next_segment=1
    )
    session.add(attempt)
    job.started_at = job.started_at or now()
    change_state(session, job, S.STARTING, why)
    return attempt


def end_attempt(attempt: AttemptRow, outcome: AttemptOutcome, cause: str = "") -> None:
    """Set the outcome of an attempt, and why it ended unless it succeeded."""
    attempt.outcome, attempt.cause = outcome, cause
    attempt.finished_at = now()


def attempt_failed(session: AsyncSession, job: JobRow, error: JobError) -> None:
    """Change a job whose attempt failed: as the user has requested meanwhile, else begin a retry or fail the job."""
    job.failures += 1
    if job.state == S.CANCELLING:
        change_state(session, job, S.CANCELLED, "cancelled")
    elif job.state == S.PAUSING:
        change_state(session, job, S.PAUSED, "paused at the last checkpoint")
    elif error.retryable and job.failures < job.spec["max_attempts"]:
        begin_attempt(session, job, f"{error.message}; attempt {job.attempt + 1} continues from the last checkpoint")
    else:
        job.error = error.model_dump(mode="json")
        change_state(session, job, S.FAILED, error.message, data={"code": error.code})


def attempt_stopped(session: AsyncSession, job: JobRow) -> None:
    """Change a job whose attempt stopped on request."""
    if job.state == S.CANCELLING:
        change_state(session, job, S.CANCELLED, "cancelled")
    elif job.state == S.PAUSING:
        change_state(session, job, S.PAUSED, "paused")
    else:  # by an older control file, as after a pause and a resume in short order
        begin_attempt(session, job, f"attempt {job.attempt} had stopped; the next one continues from its checkpoint")


def why_stopped(job: JobRow) -> str:
    """Return the cause of the end of an attempt that stopped on request."""
    requests = {S.CANCELLING: "the job was cancelled", S.PAUSING: "the job was paused"}
    return requests.get(JobState(job.state), "an earlier request stopped it")


def attempt_interrupted(session: AsyncSession, job: JobRow, why: str) -> None:
    """Change a job whose attempt ended for a reason that is not its own, which is not counted as a failure."""
    if job.state in (S.PAUSING, S.CANCELLING):
        attempt_stopped(session, job)
    else:
        change_state(session, job, S.QUEUED, why)


def _end_stages(job: JobRow, state: JobState) -> None:
    """End the stages like their job. All stages of a job that succeeded have succeeded."""
    for stage in job.stages:
        if state == S.SUCCEEDED:
            change_stage(stage, T.SUCCEEDED)
        elif state == S.CANCELLED:
            change_stage(stage, T.CANCELLED)
        elif stage.state != T.PENDING:
            change_stage(stage, T.FAILED)


class IllegalState(AssertionError):
    """An illegal transition, which is a bug."""


@event.listens_for(JobRow.state, "set", active_history=True)
def _guard_job(job: JobRow, state: str, before: Any, _: Any) -> None:
    if isinstance(before, str) and state not in JOB_TRANSITIONS[JobState(before)]:
        raise IllegalState(f"job {job.id}: {before} cannot become {state}")


@event.listens_for(StageRow.state, "set", active_history=True)
def _guard_stage(stage: StageRow, state: str, before: Any, _: Any) -> None:
    if isinstance(before, str) and state not in STAGE_TRANSITIONS[StageState(before)]:
        raise IllegalState(f"stage {stage.index} of {stage.job_id}: {before} cannot become {state}")


@event.listens_for(AttemptRow.outcome, "set", active_history=True)
def _guard_attempt(attempt: AttemptRow, outcome: str | None, before: Any, _: Any) -> None:
    if isinstance(before, str):
        raise IllegalState(f"{attempt.ray_submission_id} has {before} and cannot also have {outcome}")
