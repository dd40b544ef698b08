"""Application of worker events to their job: one handler a type of event, in the transaction that moves the read position."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.schemas import JobError, JobState, ModelVersion, Scores, StageState, StudentSummary

from tinyclip_server.database.tables import AttemptRow, JobRow, LogLineRow, MetricPointRow, StageRow
from tinyclip_server.jobs.lifecycle import (
    AttemptOutcome,
    attempt_failed,
    attempt_stopped,
    change_stage,
    change_state,
    end_attempt,
    record,
    show_waiting,
    why_stopped,
)
from tinyclip_server.models import service as models

logger = logging.getLogger(__name__)

MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
"""Raised by handlers for malformed event data; they read all they need before they change anything."""


class Handler(Protocol):
    async def __call__(self, session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None: ...


async def apply_event(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    """Record an event and apply it to the job. After an attempt's final event only log lines are accepted."""
    if event.type == "log":
        _add_log_line(session, job, attempt, event)
        return
    if attempt.outcome is not None:
        logger.warning("%s sent %s after its final event", attempt.ray_submission_id, event.type)
        return
    record(
        session, job, event.type, event.message, attempt=attempt.number, stage=event.stage, data=event.data, at=event.time
    )
    handler = HANDLERS.get(event.type)
    if handler is None:
        return
    try:
        await handler(session, job, attempt, event)
    except MALFORMED as error:  # it stays in the history and is not applied: another try would fail too
        logger.error("%s: %s has malformed data %r: %r", attempt.ray_submission_id, event.type, event.data, error)


def _add_log_line(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    job.last_log += 1
    session.add(
        LogLineRow(
            job_id=job.id, seq=job.last_log, attempt=attempt.number, level=str(event.data.get("level", "info")),
            source=str(event.data.get("source", "")), message=event.message, created_at=event.time,
        )
    )


async def _attempt_started(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    if job.state == JobState.STARTING:
        change_state(session, job, JobState.RUNNING, f"attempt {attempt.number} has started")


async def _stage_started(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    stage = _stage(job, event)
    steps, student = int(event.data.get("steps", stage.steps)), event.data.get("student")
    stage.student = _student(student) if student else stage.student
    stage.steps = steps
    change_stage(stage, StageState.RUNNING)
    resumed = job.progress.get("stage") == stage.index
    step = min(job.progress.get("step", 0), stage.steps) if resumed else 0
    _show_progress(job, stage, {"step": step, "steps": stage.steps})


async def _worker_group_waiting(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    show_waiting(job, event.message)


async def _worker_group_placed(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    show_waiting(job, None)


async def _stage_pruned(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    _stage(job, event).student = _student(event.data)


async def _progress(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    stage = _stage(job, event)
    metrics = {name: value for name, value in (event.data.get("metrics") or {}).items() if value is not None}
    step = int(event.data["step"])
    points = _points(job, stage.index, step, metrics)
    _show_progress(job, stage, event.data)
    stage.metrics = {**stage.metrics, "last": {**metrics, "step": step}}
    await _add_points(session, job, points)


async def _agreement_measured(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    stage, step = _stage(job, event), int(event.data["step"])
    found = {name: float(event.data[name]) for name in ("start_kl", "kl")}
    if not all(map(math.isfinite, found.values())):
        raise ValueError("a divergence is not finite")
    points = _points(job, stage.index, step, {"teacher_kl": found["kl"]})
    stage.metrics = {**stage.metrics, "agreement": {**found, "step": step}}
    await _add_points(session, job, points)


async def _stage_evaluating(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    change_stage(_stage(job, event), StageState.EVALUATING)


async def _evaluation(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    stage, task = _stage(job, event), str(event.data["task"])
    student, teacher = event.data["student"], event.data.get("teacher")
    numbers = {f"{task}/{name}": value for name, value in student.items()}
    points = _points(job, stage.index, int(event.data.get("step", 0)), numbers)
    scores = Scores.model_validate({"student": student, "teacher": teacher})
    stage.evaluation = {**stage.evaluation, task: scores.model_dump()}
    await _add_points(session, job, points)


async def _stage_finished(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    stage = _stage(job, event)
    change_stage(stage, StageState.SUCCEEDED)
    _show_progress(job, stage, {"step": stage.steps, "steps": stage.steps})


async def _model_exported(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    attempt.model = event.data


async def _attempt_succeeded(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    assert job.model_version is not None
    problem = _model_problem(attempt.model)
    if attempt.model is not None and problem is None:
        await models.register(session, attempt.model, name=job.model_name, version=job.model_version, job_id=job.id)
    end_attempt(attempt, AttemptOutcome.SUCCEEDED, problem[1] if problem is not None else "")
    if problem is not None:
        _fail(session, job, *problem)
        return
    job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0.0}
    change_state(
        session, job, JobState.SUCCEEDED, f"made {job.model_name}@{job.model_version}",
        data={"model": {"name": job.model_name, "version": job.model_version}},
    )


def _model_problem(document: dict[str, Any] | None) -> tuple[str, str] | None:
    """Return the code and the message of the error if an attempt exported no valid model."""
    if document is None:
        return "no_model", "the attempt succeeded without exporting a model"
    try:
        ModelVersion.model_validate(document)
    except ValidationError as error:
        return "bad_model_document", f"model.json is not a valid model version: {error.errors()[0]['msg']}"
    return None


async def _attempt_failed(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    error = JobError(
        code=str(event.data.get("code", "attempt_failed")), message=event.message or "the attempt failed",
        stage=event.data.get("stage", event.stage), attempt=attempt.number, retryable=bool(event.data.get("retryable", False)),
    )
    end_attempt(attempt, AttemptOutcome.FAILED, error.message)
    attempt_failed(session, job, error)


async def _attempt_stopped(session: AsyncSession, job: JobRow, attempt: AttemptRow, event: WorkerEvent) -> None:
    end_attempt(attempt, AttemptOutcome.STOPPED, why_stopped(job))
    attempt_stopped(session, job)


HANDLERS: Mapping[str, Handler] = {
    "attempt.started": _attempt_started,
    "stage.started": _stage_started,
    "worker_group.waiting": _worker_group_waiting,
    "worker_group.placed": _worker_group_placed,
    "stage.pruned": _stage_pruned,
    "progress": _progress,
    "agreement.measured": _agreement_measured,
    "stage.evaluating": _stage_evaluating,
    "evaluation": _evaluation,
    "stage.finished": _stage_finished,
    "model.exported": _model_exported,
    "attempt.succeeded": _attempt_succeeded,
    "attempt.failed": _attempt_failed,
    "attempt.stopped": _attempt_stopped,
}
"""Events of other types are only recorded."""


def _fail(session: AsyncSession, job: JobRow, code: str, message: str) -> None:
    attempt_failed(session, job, JobError(code=code, message=message, attempt=job.attempt, retryable=False))


def _stage(job: JobRow, event: WorkerEvent) -> StageRow:
    index = event.stage or 0
    if not 0 <= index < len(job.stages):
        raise ValueError(f"{event.type} names stage {index}, but job {job.id} has {len(job.stages)}")
    return job.stages[index]


def _student(summary: Any) -> dict[str, Any]:
    return StudentSummary.model_validate(summary).model_dump(mode="json")


def _show_progress(job: JobRow, stage: StageRow, reported: dict[str, Any]) -> None:
    """Set the job's progress over all stages from one stage's, assuming its speed for the stages that follow."""
    step, steps = int(reported["step"]), int(reported.get("steps", stage.steps))
    total = sum(one.steps for one in job.stages)
    done = sum(one.steps for one in job.stages if one.index < stage.index) + step
    eta, rate = (_number(reported.get(name)) for name in ("eta_seconds", "pairs_per_second"))
    if eta is not None and steps > step:
        eta = eta * (total - done) / (steps - step)
    job.progress = {
        "stage": stage.index, "stages": len(job.stages), "step": step, "steps": steps,
        "fraction": min(1.0, done / total) if total else 0.0,
        "samples_seen": int(reported.get("samples_seen", job.progress.get("samples_seen", 0))),
        "pairs_per_second": rate, "eta_seconds": eta,
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _points(job: JobRow, stage: int, step: int, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the finite numbers among the metrics."""
    return [
        {"job_id": job.id, "name": name, "stage": stage, "step": step, "value": float(value)}
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]


async def _add_points(session: AsyncSession, job: JobRow, points: list[dict[str, Any]]) -> None:
    """Number and insert points; those of a step that is repeated replace its earlier ones."""
    if not points:
        return
    numbered = [{**point, "seq": number} for number, point in enumerate(points, job.last_metric + 1)]
    job.last_metric += len(points)
    new = (pg_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert)(MetricPointRow).values(numbered)
    keys, changed = ["job_id", "name", "stage", "step"], {"value": new.excluded.value, "seq": new.excluded.seq}
    await session.execute(new.on_conflict_do_update(index_elements=keys, set_=changed))
