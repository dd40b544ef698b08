"""Operations on jobs. Each function works in the caller's transaction and only flushes."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import DatasetVersion, JobPatch, JobSpec, JobState, StageState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow, StageRow
from tinyclip_server.datasets import versions
from tinyclip_server.http.resources import new_id
from tinyclip_server.jobs import repository
from tinyclip_server.jobs.lifecycle import NEXT_STEP, ON_CLUSTER, change_state, first_event, record
from tinyclip_server.jobs.specs import PlannedJob
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound
from tinyclip_server.reinforcements import service as reinforcements


async def create(
    session: AsyncSession, project: str, planned: PlannedJob, *, search: str | None = None, trial: int | None = None
) -> JobRow:
    """Queue a new job; with `search` and `trial`, a trial of a search.

    Raises Conflict if its name is that of another project's model, or its data set was deleted meanwhile."""
    spec, plan, dataset = planned.spec, planned.plan, planned.dataset
    if dataset is not None:
        await _lock_data(session, project, spec, dataset)
    await models.claim_name(session, project, spec.name)
    job = _queued(
        project=project,
        name=spec.name,
        labels=spec.labels,
        priority=0,
        spec=spec.model_dump(mode="json"),
        resolved_spec=plan.spec.model_dump(mode="json"),
        submitted_spec=planned.submitted,
        dataset=dataset.model_dump(mode="json") if dataset is not None else None,
        progress={"stages": len(plan.stages), "steps": plan.stages[0].steps if plan.stages else 0},
        model_name=spec.name,
        search_id=search,
        trial=trial,
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
    """Create a job that continues where a failed or cancelled one ended, with its plan and metrics.

    The engine adopts the old job's checkpoints; the old job does not change. Raises NotFound, Conflict.
    """
    old = await get(session, project, job_id, lock=True)
    if old.state not in (JobState.FAILED, JobState.CANCELLED):
        message = f"job {old.id} is {old.state}: only a failed or cancelled job can be retried; {NEXT_STEP[JobState(old.state)]}"
        raise Conflict(message, code="illegal_transition")
    if retries := await repository.active_retries(session, job_id):
        message = f"job {retries[0].id} is already a retry of {job_id}; follow that one, or cancel it"
        raise Conflict(message, code="already_retried")
    if old.checkpoints_expired_at is not None:
        message = f"the checkpoints of {old.id} have expired; clone it to train again"
        raise Conflict(message, code="checkpoints_expired")
    if old.dataset is not None:
        await _lock_data(session, project, JobSpec.model_validate(old.spec), DatasetVersion.model_validate(old.dataset))
    job = _queued(
        project=old.project,
        name=old.name,
        labels=old.labels,
        priority=old.priority,
        spec=old.spec,
        resolved_spec=old.resolved_spec,
        submitted_spec=old.submitted_spec,
        last_metric=old.last_metric,
        dataset=old.dataset,
        progress=old.progress,
        model_name=old.model_name,
        adopts=[old.id, *(old.adopts or [])],
        stages=[_stage_again(stage) for stage in old.stages],
    )
    await _begin(session, job, f"continues from the last checkpoint of {old.id}", {"retry_of": old.id})
    await repository.copy_metric_points(session, old.id, job.id)
    record(session, old, "job.retried", f"{job.id} continues from here", data={"job": job.id})
    await session.flush()
    return job


async def _lock_data(session: AsyncSession, project: str, spec: JobSpec, dataset: DatasetVersion) -> None:
    """Lock what a new job trains on against its deletion. Raises Conflict if it is deleted."""
    await versions.lock(session, project, dataset, "train")
    if spec.data.train.reinforcement is not None:
        await reinforcements.lock(session, spec.data.train.reinforcement)


def _queued(**given: Any) -> JobRow:
    return JobRow(
        id=new_id("job"), state=JobState.QUEUED, revision=1, last_event=0, last_log=0, attempt=0, failures=0,
        created_at=now(), **given,
    )


def _stage_again(old: StageRow) -> StageRow:
    """Return a stage of a retry: a finished stage stays finished, another starts from its last checkpoint."""
    kept = {"index": old.index, "name": old.name, "inherit": old.inherit, "steps": old.steps, "student": old.student}
    if old.state == StageState.SUCCEEDED:
        return StageRow(**kept, state=old.state, metrics=old.metrics, evaluation=old.evaluation)
    return StageRow(**kept, state=StageState.PENDING, metrics={}, evaluation={})


async def _begin(session: AsyncSession, job: JobRow, message: str, data: dict[str, Any] | None = None) -> JobRow:
    await repository.add(session, job, first_event(job, message, data))
    return job


async def get(session: AsyncSession, project: str, job_id: str, *, lock: bool = False) -> JobRow:
    """Return a job. Raises NotFound."""
    job = await repository.find(session, project, job_id, lock=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id}", code="no_such_job")
    return job


async def patch(session: AsyncSession, job: JobRow, change: JobPatch) -> None:
    """Change name, labels or priority; the spec and the model's name do not change."""
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
    """Cancel a job: at once without an attempt, else when its attempt has ended. Repeated, it is a no-op."""
    if job.state in (JobState.CANCELLING, JobState.CANCELLED):
        return
    if job.state in ON_CLUSTER:
        change_state(session, job, JobState.CANCELLING, "cancel requested")
        job.stop_requested_at = now()
    else:
        change_state(session, job, JobState.CANCELLED, "cancelled before it ran" if not job.attempt else "cancelled")


def pause(session: AsyncSession, job: JobRow) -> None:
    """Pause a job at a checkpoint. Repeated, it is a no-op."""
    if job.state in (JobState.PAUSING, JobState.PAUSED):
        return
    if job.state in ON_CLUSTER:
        change_state(session, job, JobState.PAUSING, "pause requested")
        job.stop_requested_at = now()
    else:
        change_state(session, job, JobState.PAUSED, "paused before it ran" if not job.attempt else "paused")


def resume(session: AsyncSession, job: JobRow) -> None:
    """Queue a paused job again, to continue from its last checkpoint. Repeated, it is a no-op. Raises Conflict."""
    if job.state == JobState.QUEUED:
        return
    if job.state != JobState.PAUSED:  # RUNNING to QUEUED is legal too, but only when the cluster was stopped
        message = f"job {job.id} is {job.state}: only a paused job can be resumed; {NEXT_STEP[JobState(job.state)]}"
        raise Conflict(message, code="illegal_transition")
    change_state(session, job, JobState.QUEUED, "resumed")


async def delete(session: AsyncSession, job: JobRow) -> None:
    """Mark an ended job as deleted; `cleanup.py` removes its artifacts and then its rows. Raises Conflict.

    A kill at any point leaves the whole job, or one that is hidden and whose removal continues.
    """
    if not JobState(job.state).terminal:
        raise Conflict(f"job {job.id} is {job.state}; cancel it before deleting it", code="job_not_terminal")
    if retries := await repository.active_retries(session, job.id):
        message = f"job {retries[0].id} continues from the checkpoints of {job.id}; wait until it has ended, or cancel it"
        raise Conflict(message, code="checkpoints_in_use")
    if job.search_id is not None and job.search_id in await repository.active_searches(session, [job]):
        message = f"job {job.id} is a trial of search {job.search_id}, which has not ended; wait for its end, or cancel it"
        raise Conflict(message, code="search_in_progress")
    job.deleted_at = now()
    await session.flush()
