"""Operations on searches. Each function works in the caller's transaction and only flushes."""

from collections.abc import Callable, Sequence
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobState, Response, SearchPhase

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow, MeasurementRow, SearchRow
from tinyclip_server.http.resources import DELETING, begin_ray_job, mark_deleting, new_id
from tinyclip_server.jobs import lifecycle as job_lifecycle
from tinyclip_server.jobs import service as jobs
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound
from tinyclip_server.searches import repository
from tinyclip_server.searches.checks import CheckedSearch, needs_costs
from tinyclip_server.searches.lifecycle import NEXT_STEP, change_state, record
from tinyclip_server.searches.trials import PlannedSpec, known_trials

S = JobState

MeasurementKind = Literal["costs", "finalists"]
WORKING = ("queued", "running")
"""States of a measurement whose Ray job works or is to be submitted."""


async def create(session: AsyncSession, project: str, checked: CheckedSearch) -> SearchRow:
    """Queue a search, which its loop begins. Raises Conflict if its name is that of another project's model."""
    post, plan = checked.post, checked.plan.plan
    teacher = plan.teacher.layout if plan.teacher is not None else None
    planned = PlannedSpec(steps=plan.steps, device_hours=plan.device_hours, teacher=teacher)
    await models.claim_name(session, project, post.spec.name)
    search = SearchRow(
        id=new_id("sea"), project=project, name=post.spec.name, post=post.model_dump(mode="json"), state=S.QUEUED,
        phase=SearchPhase.MEASURING if needs_costs(post.constraints) else SearchPhase.TRIALS, message="", revision=1,
        plan=planned.model_dump(mode="json"), last_event=0, lease_owner="", lease_token=0, created_at=now(),
    )
    session.add(search)
    await session.flush()
    message = f"at most {checked.plan.trials} trials, about {checked.plan.device_hours:.3g} device-hours"
    record(session, search, "search.created", message)
    await session.flush()
    return search


async def get(session: AsyncSession, project: str, id: str, *, lock: bool = False) -> SearchRow:
    """Return a search. Raises NotFound."""
    search = await repository.find(session, project, id, lock=lock)
    if search is None:
        raise NotFound(f"there is no search {id}", code="no_such_search")
    return search


async def cancel(session: AsyncSession, search: SearchRow) -> None:
    """Cancel a search and its jobs. It is cancelled once they have ended. Repeated, it is a no-op."""
    if search.state in (S.CANCELLING, S.CANCELLED):
        return
    change_state(session, search, S.CANCELLING, "cancel requested")
    await stop(session, search)


async def pause(session: AsyncSession, search: SearchRow) -> None:
    """Pause a search and its jobs. It is paused once they are. Repeated, it is a no-op."""
    if search.state in (S.PAUSING, S.PAUSED):
        return
    change_state(session, search, S.PAUSING, "pause requested")
    await stop(session, search)


async def resume(session: AsyncSession, search: SearchRow) -> None:
    """Go on with a paused search and its paused jobs. Repeated, it is a no-op. Raises Conflict."""
    if search.state in (S.QUEUED, S.RUNNING):
        return
    if search.state != S.PAUSED:
        message = f"search {search.id} is {search.state}: only a paused search can be resumed; {NEXT_STEP[S(search.state)]}"
        raise Conflict(message, code="illegal_transition")
    change_state(session, search, S.QUEUED, "resumed")
    for job in await repository.locked_jobs(session, search.id):
        if job.state == S.PAUSED:
            jobs.resume(session, job)


async def stop(session: AsyncSession, search: SearchRow) -> None:
    """Have the work of a pausing or cancelling search stopped, and end the transition if nothing works any more."""
    cancelling = search.state == S.CANCELLING
    found = await repository.locked_jobs(session, search.id)
    if cancelling:
        _apply(session, found, jobs.cancel, S.CANCELLING, S.CANCELLED)
    else:
        _apply(session, found, jobs.pause, S.PAUSING, S.PAUSED)
    working = [row for row in await repository.measurements(session, search.id, lock=True) if row.state in (*WORKING, DELETING)]
    for row in working if cancelling else ():
        mark_deleting(row)  # its follower stops the Ray job, then deletes the row
    await session.flush()
    if working or any(S(job.state) in (S.QUEUED, *job_lifecycle.ON_CLUSTER) for job in found):
        return
    await keep_outcomes(session, search)
    change_state(session, search, S.CANCELLED if cancelling else S.PAUSED, "cancelled" if cancelling else "paused")


async def keep_outcomes(session: AsyncSession, search: SearchRow) -> None:
    """Store how trials have ended, also for after the deletion of their jobs."""
    for trial in await known_trials(session, search.id):
        outcome, number = trial.outcome, trial.row.number
        if trial.is_settled or not outcome.state.terminal:
            continue
        trial.row.outcome = outcome.model_dump(mode="json")
        search.device_hours += outcome.device_hours
        message = f"trial {number} {outcome.state.value}" + (f": {outcome.error}" if outcome.error else "")
        record(session, search, f"trial.{outcome.state.value}", message, trial=number, data={"job": trial.row.job_id})


async def end(session: AsyncSession, search: SearchRow, state: JobState, message: str) -> None:
    """End a running search, and cancel what still works for it."""
    _apply(session, await repository.locked_jobs(session, search.id), jobs.cancel, S.CANCELLING, S.CANCELLED)
    for row in await repository.measurements(session, search.id, lock=True):
        if row.state in WORKING:
            mark_deleting(row)
    await session.flush()
    await keep_outcomes(session, search)
    change_state(session, search, state, message)


async def delete(session: AsyncSession, search: SearchRow) -> None:
    """Mark an ended search as deleted; its jobs stay, as jobs of their own. Raises Conflict."""
    if not S(search.state).terminal:
        raise Conflict(f"search {search.id} is {search.state}; cancel it before deleting it", code="search_not_terminal")
    await repository.forget_jobs(session, search.id)
    for row in await repository.measurements(session, search.id, lock=True):
        mark_deleting(row)
    search.deleted_at = now()
    await session.flush()


async def begin_measurement(session: AsyncSession, search: SearchRow, kind: MeasurementKind, request: Response) -> None:
    """Queue a Ray job of a search; its follower submits it."""
    row = await session.get(MeasurementRow, (search.id, kind), with_for_update=True)
    if row is None:
        row = MeasurementRow(search_id=search.id, kind=kind, project=search.project, version=0, attempt=0, state=WORKING[0])
        session.add(row)
    row.request, row.result, row.lost = request.model_dump(mode="json"), None, 0
    begin_attempt(row)
    await session.flush()


def begin_attempt(row: MeasurementRow) -> None:
    """Begin a measurement, or begin it again after its Ray job was lost."""
    row.attempt, row.progress = row.attempt + 1, 0.0
    begin_ray_job(row, f"tc-{row.kind}-{row.search_id}-a{row.attempt}", WORKING[0])


def etag(search: SearchRow) -> str:
    """Return two counters: `If-Match` compares the first (the state), a long poll waits for a change of either."""
    return f"{search.revision}.{search.last_event}"


def _apply(
    session: AsyncSession, found: Sequence[JobRow], change: Callable[[AsyncSession, JobRow], None], *possible: JobState
) -> None:
    """Change the jobs for which one of these transitions is legal."""
    for job in found:
        if any(job_lifecycle.can_become(job, state) for state in possible):
            change(session, job)
