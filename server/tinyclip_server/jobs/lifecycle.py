"""What may follow which state of a job, a stage and an attempt, and the only functions that move them along.

A change and its event belong to one transaction; nothing outside this file sets a state or numbers an event. The guards at
the end hold the rest of the code to it: a state that cannot follow the present one is not written, whoever tries.
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


class AttemptOutcome(StrEnum):
    """How an attempt ended. It begins without one, and the first is the last."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """So far as its own last word."""
    LOST = "lost"
    """It ended without a last word, or Ray no longer knows it."""
    WITHDRAWN = "withdrawn"
    """Asked to stop before Ray had it."""
    INTERRUPTED = "interrupted"
    """It went with its whole cluster."""

    @property
    def told(self) -> bool:
        """Whether the attempt said so itself, as its last act. Of the others a process may still be somewhere."""
        return self in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.STOPPED)


S, T = JobState, StageState

FOLLOWS: Mapping[JobState, frozenset[JobState]] = {
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
"""STARTING follows STARTING and RUNNING when an attempt died and the next one begins, QUEUED when the whole embedded cluster
was stopped. What a user asks for while the last attempt is just succeeding comes too late: the student is there, and the
job says so. Nothing follows an end: a retry is another job."""

STAGE_FOLLOWS: Mapping[StageState, frozenset[StageState]] = {
    T.PENDING: frozenset({T.RUNNING, T.EVALUATING, T.SUCCEEDED, T.CANCELLED}),
    T.RUNNING: frozenset({T.EVALUATING, T.SUCCEEDED, T.FAILED, T.CANCELLED}),
    T.EVALUATING: frozenset({T.RUNNING, T.SUCCEEDED, T.FAILED, T.CANCELLED}),
    T.SUCCEEDED: frozenset(),
    T.FAILED: frozenset(),
    T.CANCELLED: frozenset(),
}
"""RUNNING follows EVALUATING when the group was started again. A stage may be SUCCEEDED without our having heard of its run:
its worker died after the student was written and before it was told, and the next attempt took the student as it was."""

ON_CLUSTER = (S.STARTING, S.RUNNING, S.PAUSING, S.CANCELLING)
"""States in which an attempt may exist."""
ENDED = tuple(state for state in JobState if state.terminal)

WAY_OUT: Mapping[JobState, str] = {
    S.QUEUED: "it needs nothing to start but its turn",
    S.STARTING: "cancel or pause it first",
    S.RUNNING: "cancel or pause it first",
    S.PAUSING: "wait until it is paused",
    S.PAUSED: "resume or cancel it",
    S.CANCELLING: "wait until it is cancelled, and retry it then",
    S.SUCCEEDED: "clone it to train again",
    S.FAILED: "retry it to go on from its last checkpoint",
    S.CANCELLED: "retry it to go on from its last checkpoint",
}
"""What a user may do who asked for something that cannot follow."""


def may_follow(job: JobRow, state: JobState) -> bool:
    return state in FOLLOWS[JobState(job.state)]


def change_state(
    session: AsyncSession, job: JobRow, state: JobState, message: str, *, data: dict[str, Any] | None = None
) -> None:
    """Move a job to a state and record `job.<state>`. Raises Conflict if the state cannot follow the present one."""
    if not may_follow(job, state):
        message = f"job {job.id} is {job.state}: it cannot become {state.value}; {WAY_OUT[S(job.state)]}"
        raise Conflict(message, code="illegal_transition")
    job.state = state
    job.revision += 1
    if state.terminal:
        job.finished_at = now()
        job.lease_owner, job.lease_until = "", None
        _end_stages(job, state)
    if state not in (S.PAUSING, S.CANCELLING):
        job.stop_requested_at = None
    record(session, job, f"job.{state.value}", message, attempt=job.attempt or None, data=data)


def change_stage(stage: StageRow, state: StageState) -> None:
    """Move a stage to a state; a worker that repeats itself, or a stage that is already finished, changes nothing."""
    if state in STAGE_FOLLOWS[StageState(stage.state)]:
        stage.state = state


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
    """Append an event to a job's history; the job counts as changed."""
    job.last_event += 1
    job.version += 1
    session.add(
        EventRow(
            job_id=job.id, seq=job.last_event, type=type, message=message, attempt=attempt, stage=stage, data=data or {},
            created_at=at or now(),
        )
    )


def first_event(job: JobRow, message: str, data: dict[str, Any] | None) -> EventRow:
    """`job.created` of a job that is not in the database yet."""
    job.last_event = job.version = 1
    return EventRow(job_id=job.id, seq=1, type="job.created", message=message, data=data or {}, created_at=job.created_at)


def begin_attempt(session: AsyncSession, job: JobRow, why: str) -> AttemptRow:
    """Start the next attempt: its number is the new fence, so whoever still works for an older one must leave."""
    job.attempt += 1
    attempt = AttemptRow(
        job_id=job.id, number=job.attempt, ray_submission_id=f"tc-{job.id}-a{job.attempt}", submitted=False, next_segment=1
    )
    session.add(attempt)
    job.started_at = job.started_at or now()
    change_state(session, job, S.STARTING, why)
    return attempt


def end_attempt(attempt: AttemptRow, outcome: AttemptOutcome) -> None:
    attempt.outcome = outcome
    attempt.finished_at = now()


def attempt_failed(session: AsyncSession, job: JobRow, error: JobError) -> None:
    """After an attempt ended badly: what the user wanted meanwhile, the next attempt, or the end."""
    job.failures += 1
    if job.state == S.CANCELLING:
        change_state(session, job, S.CANCELLED, "cancelled")
    elif job.state == S.PAUSING:
        change_state(session, job, S.PAUSED, "paused at the last checkpoint")
    elif error.retryable and job.failures < job.spec["max_attempts"]:
        begin_attempt(session, job, f"{error.message}; attempt {job.attempt + 1} goes on from the last checkpoint")
    else:
        job.error = error.model_dump(mode="json")
        change_state(session, job, S.FAILED, error.message, data={"code": error.code})


def attempt_stopped(session: AsyncSession, job: JobRow) -> None:
    """After an attempt left because it was asked to."""
    if job.state == S.CANCELLING:
        change_state(session, job, S.CANCELLED, "cancelled")
    elif job.state == S.PAUSING:
        change_state(session, job, S.PAUSED, "paused")
    else:  # asked by an older control file, as after a pause and a resume at once
        begin_attempt(session, job, f"attempt {job.attempt} had stopped; going on from its checkpoint")


def cluster_stopped(session: AsyncSession, job: JobRow) -> None:
    """After an attempt went with its whole cluster, which is nobody's failure."""
    if job.state in (S.PAUSING, S.CANCELLING):
        attempt_stopped(session, job)
    else:
        change_state(session, job, S.QUEUED, "the service was stopped; the job goes on from its last checkpoint when it is back")


def _end_stages(job: JobRow, state: JobState) -> None:
    """A success needs every stage's student, so all have one; else what ran has ended like the job."""
    for stage in job.stages:
        if state == S.SUCCEEDED:
            change_stage(stage, T.SUCCEEDED)
        elif state == S.CANCELLED:
            change_stage(stage, T.CANCELLED)
        elif stage.state != T.PENDING:
            change_stage(stage, T.FAILED)


class IllegalState(AssertionError):
    """Our own mistake: a state was set that cannot follow the one before."""


@event.listens_for(JobRow.state, "set", active_history=True)
def _guard_job(job: JobRow, state: str, before: Any, _: Any) -> None:
    if isinstance(before, str) and state not in FOLLOWS[JobState(before)]:
        raise IllegalState(f"job {job.id}: {before} cannot become {state}")


@event.listens_for(StageRow.state, "set", active_history=True)
def _guard_stage(stage: StageRow, state: str, before: Any, _: Any) -> None:
    if isinstance(before, str) and state not in STAGE_FOLLOWS[StageState(before)]:
        raise IllegalState(f"stage {stage.index} of {stage.job_id}: {before} cannot become {state}")


@event.listens_for(AttemptRow.outcome, "set", active_history=True)
def _guard_attempt(attempt: AttemptRow, outcome: str | None, before: Any, _: Any) -> None:
    if isinstance(before, str):
        raise IllegalState(f"{attempt.ray_submission_id} has {before} and cannot have {outcome} too")
