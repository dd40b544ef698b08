"""Decisions on an attempt whose events did not end it, from Ray's status and the limits of its spec."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobError
from tinyclip.schemas.spec import Timeouts

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.jobs.lifecycle import (
    AttemptOutcome,
    attempt_failed,
    attempt_interrupted,
    attempt_stopped,
    end_attempt,
    record,
    why_stopped,
)
from tinyclip_server.orchestration.ray_jobs.observation import Observation, Verdict


def judge(
    session: AsyncSession, job: JobRow, attempt: AttemptRow, seen: Observation, unknown_grace_s: float, timeouts: Timeouts
) -> None:
    """Act on the verdict on an attempt whose events did not end it."""
    if seen.verdict is Verdict.REFUSED:
        message = f"Ray refused the job: {seen.refused}"
        end_attempt(attempt, AttemptOutcome.FAILED, message)
        attempt_failed(session, job, JobError(code="ray_refused", message=message, attempt=attempt.number))
        return
    if seen.verdict is Verdict.ABANDONED:
        _lose(session, job, attempt, f"no server of its cluster {attempt.cluster} runs")
        return
    if seen.verdict is Verdict.UNDECIDED:
        return
    attempt.ray_status = seen.status.value if seen.status else None
    if seen.verdict is Verdict.UNKNOWN and not attempt.submitted:  # stopped before it was ever submitted
        end_attempt(attempt, AttemptOutcome.WITHDRAWN, why_stopped(job))
        attempt_stopped(session, job)
    elif seen.verdict is Verdict.UNKNOWN:
        _judge_unknown(session, job, attempt, unknown_grace_s)
    elif seen.verdict is Verdict.LOST and seen.never_started is not None:
        why = f"Ray found no room for its driver: {seen.never_started}"
        end_attempt(attempt, AttemptOutcome.INTERRUPTED, why)
        attempt_interrupted(session, job, why)
    elif seen.verdict is Verdict.LOST:
        _lose(session, job, attempt, f"its driver ended without a final event (Ray reports {attempt.ray_status})")
    elif seen.verdict is Verdict.STALLED:
        _lose(session, job, attempt, f"no progress for {timeouts.progress_seconds:g} s", AttemptOutcome.STALLED)
    else:
        attempt.unknown_since = None


def _judge_unknown(session: AsyncSession, job: JobRow, attempt: AttemptRow, unknown_grace_s: float) -> None:
    """Wait for a grace period, because Ray's head may have lost its records; then go on under a new fence."""
    if attempt.unknown_since is None:
        attempt.unknown_since = now()
        record(session, job, "attempt.unknown", "Ray does not know the attempt", attempt=attempt.number)
    elif now() - attempt.unknown_since >= timedelta(seconds=unknown_grace_s):
        _lose(session, job, attempt, "Ray no longer knows it")


def _lose(
    session: AsyncSession, job: JobRow, attempt: AttemptRow, why: str, outcome: AttemptOutcome = AttemptOutcome.LOST
) -> None:
    """End an attempt whose processes may still run: `jobs/cleanup.py` stops them, and the next attempt's fence."""
    what = "lost" if outcome is AttemptOutcome.LOST else "stopped"
    error = JobError(
        code=f"attempt_{outcome.value}", message=f"attempt {attempt.number} is {what}: {why}",
        stage=job.progress.get("stage"), attempt=attempt.number, retryable=True,
    )
    end_attempt(attempt, outcome, error.message)
    record(session, job, f"attempt.{outcome.value}", error.message, attempt=attempt.number)
    attempt_failed(session, job, error)


def time_out(session: AsyncSession, job: JobRow, attempt: AttemptRow, timeouts: Timeouts) -> None:
    """Fail a job whose time on the cluster is up. `jobs/cleanup.py` stops what still runs."""
    error = JobError(
        code="time_limit", stage=job.progress.get("stage"), attempt=attempt.number,
        message=f"the job was on the cluster for longer than timeouts.total_seconds, {timeouts.total_seconds:g} s; "
        "retry it to continue from its last checkpoint",
    )
    end_attempt(attempt, AttemptOutcome.TIMED_OUT, error.message)
    attempt_failed(session, job, error)
