"""What a reinforcement allows now: answers list it, and `service` refuses everything else."""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import ReinforcementAction, ReinforcementState, Scope

from tinyclip_server.database.tables import ReinforcementRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import DELETING
from tinyclip_server.reinforcements import repository


async def allowed(
    session: AsyncSession, caller: Caller, rows: Sequence[ReinforcementRow]
) -> Callable[[ReinforcementRow], list[ReinforcementAction]]:
    """Return a function that lists what each of these reinforcements allows to the caller."""
    if not caller.may(Scope.WRITE):
        return lambda row: []
    used = await repository.used_by_jobs(session, [row.id for row in rows])
    return lambda row: possible(row, used=row.id in used)


def possible(row: ReinforcementRow, *, used: bool = False) -> list[ReinforcementAction]:
    """Return what a reinforcement allows to a caller who may write; `used`: a job that has not ended trains on it."""
    actions: dict[ReinforcementAction, bool] = {
        "train": row.state == ReinforcementState.SUCCEEDED,
        "retry": row.state == ReinforcementState.FAILED,
        "delete": row.state != DELETING and not used,
    }
    return [action for action, is_possible in actions.items() if is_possible]
