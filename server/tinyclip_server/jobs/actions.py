"""What a caller can do with a job now, by the rules by which `service.py` refuses everything else."""

from collections.abc import Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobAction, JobState, Scope

from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.jobs import repository
from tinyclip_server.jobs.lifecycle import ON_CLUSTER, can_become

S = JobState


async def allowed(session: AsyncSession, caller: Caller, jobs: Iterable[JobRow]) -> Callable[[JobRow], list[JobAction]]:
    """Return a function that lists what each of these jobs allows to the caller."""
    if not caller.may(Scope.WRITE):
        return lambda job: []
    ended = [job for job in jobs if JobState(job.state).terminal]
    adopted = await repository.adopted_by_active_retries(session) if ended else set()
    searches = await repository.active_searches(session, ended)
    return lambda job: possible(job, adopted=job.id in adopted, searched=job.search_id in searches)


def possible(job: JobRow, *, adopted: bool, searched: bool = False) -> list[JobAction]:
    """Return what a job allows to a caller who may write.

    `adopted`: an active retry continues from its checkpoints; `searched`: it is a trial of a search that has not ended.
    """
    state = JobState(job.state)
    on_cluster = state in ON_CLUSTER
    actions: dict[JobAction, bool] = {
        "cancel": can_become(job, S.CANCELLING if on_cluster else S.CANCELLED),
        "pause": can_become(job, S.PAUSING if on_cluster else S.PAUSED),
        "resume": state is S.PAUSED,
        "retry": state in (S.FAILED, S.CANCELLED) and not adopted and job.checkpoints_expired_at is None,
        "clone": True,
        "edit": True,
        "delete": state.terminal and not adopted and not searched,
    }
    return [action for action, is_possible in actions.items() if is_possible]
