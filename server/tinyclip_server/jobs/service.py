"""What can be done with jobs. Each function works in the caller's transaction and only flushes."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobPatch, JobSpec, JobState, Plan, StageState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow, StageRow
from tinyclip_server.http.resources import new_id
from tinyclip_server.jobs import repository
from tinyclip_server.jobs.lifecycle import ON_CLUSTER, WAY_OUT, change_state, first_event, record
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound


async def create(session: AsyncSession, project: str, spec: JobSpec, plan: Plan) -> JobRow:
    """Job, stages and `job.created`, queued. Raises Conflict where the name is another project's model."""
    await models.claim_name(session, project, spec.name)
    job = _queued(
        project=project,
        name=spec.name,
        labels=spec.labels,
        priority=0,
        spec=spec.model_dump(mode="json"),
        resolved_spec=plan.spec.model_dump(mode="json"),
        progress={"stages": len(plan.stages), "steps": plan.stages[0].steps if plan.stages else 0},
        model_name=spec.name,
        stages=[
            StageRow(
                index=stage.index, name=stage.name, inherit=stage.inherit, steps=stage.steps, state=StageState.PENDING,
                student=stage.student.model_dump(mode="json"), metrics={}, evaluation={},
            )
            for stage in plan.stages
        ],
    )
    return await _begin(session, job, f"{len(plan.stages)} stages, {plan.steps} steps on {plan.device}")


async def retry(session: AsyncSession, project: str, job_id: str) -> JobRow:
    """A new job that goes on where a failed or cancelled one ended; that one stays as it is.

    Same plan, same numbers so far; the engine adopts what the old job's checkpoints hold. Raises NotFound, Conflict.
    """
    old = await get(session, project, job_id, lock=True)
    if old.state not in (JobState.FAILED, JobState.CANCELLED):
        message = f"job {old.id} is {old.state}: only a failed or cancelled job is retried; {WAY_OUT[JobState(old.state)]}"
        raise Conflict(message, code="illegal_transition")
    if heirs := await repository.living_heirs(session, job_id):
        raise Conflict(f"job {heirs[0].id} already goes on from {job_id}; follow that one, or cancel it", code="already_retried")
    if old.checkpoints_expired_at is not None:
        message = f"the checkpoints of {old.id} were kept for a while after its end and are gone; clone it to train again"
        raise Conflict(message, code="checkpoints_expired")
    job = _queued(
        project=old.project,
        name=old.name,
        labels=old.labels,
        priority=old.priority,
        spec=old.spec,
        resolved_spec=old.resolved_spec,
        progress=old.progress,
        model_name=old.model_name,
        adopts=[old.id, *(old.adopts or [])],
        stages=[_stage_again(stage) for stage in old.stages],
    )
    await _begin(session, job, f"goes on from the last checkpoint of {old.id}", {"retry_of": old.id})
    await repository.copy_metric_points(session, old.id, job.id)
    record(session, old, "job.retried", f"{job.id} goes on from here", data={"job": job.id})
    await session.flush()
    return job


def _queued(**given: Any) -> JobRow:
    return JobRow(
        id=new_id("job"), state=JobState.QUEUED, version=0, revision=1, last_event=0, last_log=0, attempt=0, failures=0,
        created_at=now(), **given,
    )


def _stage_again(old: StageRow) -> StageRow:
    """A finished stage stays finished, since its student is adopted; another begins again from its last checkpoint."""
    kept = {"index": old.index, "name": old.name, "inherit": old.inherit, "steps": old.steps, "student": old.student}
    if old.state == StageState.SUCCEEDED:
        return StageRow(**kept, state=old.state, metrics=old.metrics, evaluation=old.evaluation)
    return StageRow(**kept, state=StageState.PENDING, metrics={}, evaluation={})


async def _begin(session: AsyncSession, job: JobRow, message: str, data: dict[str, Any] | None = None) -> JobRow:
    await repository.add(session, job, first_event(job, message, data))
    return job


async def get(session: AsyncSession, project: str, job_id: str, *, lock: bool = False) -> JobRow:
    """Raises NotFound."""
    job = await repository.find(session, project, job_id, lock=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id}", code="no_such_job")
    return job


async def patch(session: AsyncSession, job: JobRow, change: JobPatch) -> None:
    """Name, labels and priority; the spec and the model's name stay as they are."""
    given = change.model_dump(exclude_unset=True, exclude_none=True)
    if not given:
        return
    job.name = given.get("name", job.name)
    job.priority = given.get("priority", job.priority)
    if "labels" in given:
        await repository.set_labels(session, job, given["labels"])
    job.revision += 1
    record(session, job, "job.updated", f"changed {', '.join(sorted(given))}", data=given)


def cancel(session: AsyncSession, job: JobRow) -> None:
    """Ask for the end. Without an attempt it has come; with one it comes when the attempt is gone. Asking twice is fine."""
    if job.state in (JobState.CANCELLING, JobState.CANCELLED):
        return
    if job.state in ON_CLUSTER:
        change_state(session, job, JobState.CANCELLING, "cancel requested")
        job.stop_requested_at = now()
    else:
        change_state(session, job, JobState.CANCELLED, "cancelled before it ran" if not job.attempt else "cancelled")


def pause(session: AsyncSession, job: JobRow) -> None:
    """Ask for a stop at a checkpoint. Asking twice is fine."""
    if job.state in (JobState.PAUSING, JobState.PAUSED):
        return
    if job.state in ON_CLUSTER:
        change_state(session, job, JobState.PAUSING, "pause requested")
        job.stop_requested_at = now()
    else:
        change_state(session, job, JobState.PAUSED, "paused before it ran" if not job.attempt else "paused")


def resume(session: AsyncSession, job: JobRow) -> None:
    """Queue a paused job again; it goes on from its last checkpoint. Asking twice is fine. Raises Conflict for another."""
    if job.state == JobState.QUEUED:
        return
    if job.state != JobState.PAUSED:  # a running job may be queued again as well, but only by the loss of its cluster
        message = f"job {job.id} is {job.state}: only a paused job is resumed; {WAY_OUT[JobState(job.state)]}"
        raise Conflict(message, code="illegal_transition")
    change_state(session, job, JobState.QUEUED, "resumed")


async def delete(session: AsyncSession, job: JobRow) -> None:
    """Hide an ended job for good; `cleanup.py` removes its artifacts and then its rows. Raises Conflict.

    In this order a kill at any point leaves either the whole job, or one that nobody sees and whose removal goes on.
    """
    if not JobState(job.state).terminal:
        raise Conflict(f"job {job.id} is {job.state}; cancel it before deleting it", code="job_not_terminal")
    if heirs := await repository.living_heirs(session, job.id):
        message = f"job {heirs[0].id} goes on from the checkpoints of {job.id}; wait until it has ended, or cancel it"
        raise Conflict(message, code="checkpoints_in_use")
    job.deleted_at = now()
    await session.flush()
