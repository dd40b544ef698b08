"""What can be done with jobs. Each function works in the caller's transaction and only flushes."""

import secrets

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobPatch, JobSpec, JobState, Plan

from tinyclip_server.db import now
from tinyclip_server.jobs import repository
from tinyclip_server.jobs.lifecycle import ON_CLUSTER, change_state, record
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound
from tinyclip_server.tables import JobLabelRow, JobRow, StageRow

ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


async def create(session: AsyncSession, project: str, spec: JobSpec, plan: Plan) -> JobRow:
    """Job, stages and `job.created`, queued. Raises Conflict where the name is another project's model."""
    await models.claim_name(session, project, spec.name)
    job = JobRow(
        id="job_" + "".join(secrets.choice(ID_ALPHABET) for _ in range(16)),
        project=project,
        name=spec.name,
        labels=spec.labels,
        priority=0,
        spec=spec.model_dump(mode="json"),
        resolved_spec=plan.spec.model_dump(mode="json"),
        state=JobState.QUEUED,
        version=0,
        revision=1,
        last_event=0,
        last_log=0,
        attempt=0,
        failures=0,
        progress={"stages": len(plan.stages), "steps": plan.stages[0].steps if plan.stages else 0},
        model_name=spec.name,
        created_at=now(),
        stages=[
            StageRow(
                index=stage.index, name=stage.name, inherit=stage.inherit, steps=stage.steps, state="pending",
                student=stage.student.model_dump(mode="json"), metrics={}, evaluation={},
            )
            for stage in plan.stages
        ],
    )
    session.add(job)
    await session.flush()
    session.add_all(JobLabelRow(job_id=job.id, key=key, value=value) for key, value in spec.labels.items())
    record(session, job, "job.created", f"{len(plan.stages)} stages, {plan.steps} steps on {plan.device}")
    await session.flush()
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
    """Queue a paused job again; it goes on from its last checkpoint. Raises Conflict while it is still pausing."""
    if job.state == JobState.QUEUED:
        return
    change_state(session, job, JobState.QUEUED, "resumed")


def expect_ended(job: JobRow) -> None:
    """Raises Conflict for a job that may still run."""
    if not JobState(job.state).terminal:
        raise Conflict(f"job {job.id} is {job.state}; cancel it before deleting it", code="job_not_terminal")


async def forget(session: AsyncSession, project: str, job_id: str) -> None:
    """Delete an ended job with all that hangs on it; nothing if another has."""
    job = await repository.find(session, project, job_id, lock=True)
    if job is not None:
        expect_ended(job)
        await session.delete(job)
        await session.flush()
