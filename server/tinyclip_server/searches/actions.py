"""What a caller can do with a search now, by the rules by which `service.py` refuses everything else."""

from tinyclip.schemas import JobState, Scope, SearchAction

from tinyclip_server.database.tables import SearchRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.searches.lifecycle import can_become


def allowed(caller: Caller, search: SearchRow) -> list[SearchAction]:
    """Return what a search allows to a caller."""
    return possible(search) if caller.may(Scope.WRITE) else []


def possible(search: SearchRow) -> list[SearchAction]:
    """Return what a search allows to a caller who may write."""
    state = JobState(search.state)
    actions: dict[SearchAction, bool] = {
        "cancel": can_become(search, JobState.CANCELLING),
        "pause": can_become(search, JobState.PAUSING),
        "resume": state is JobState.PAUSED,
        "delete": state.terminal,
    }
    return [action for action, is_possible in actions.items() if is_possible]
