"""What an index allows now: answers list it, and `service` refuses everything else."""

from typing import get_args

from tinyclip.schemas import IndexAction, IndexState, Scope

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.problems import Conflict


def allowed(caller: Caller, row: IndexRow) -> list[IndexAction]:
    """Return what an index allows to a caller."""
    if not caller.may(Scope.WRITE):
        return []
    return [action for action in get_args(IndexAction) if refusal(action, row) is None]


def refusal(action: IndexAction, row: IndexRow) -> Conflict | None:
    """Return why an index does not allow an action."""
    if row.state == IndexState.DELETING:
        return Conflict(f"index {row.name} is being deleted; wait until GET answers 404", code="index_deleting")
    if action == "update" and row.state == IndexState.FAILED:
        remedy = "PUT it again, then repeat the update"
        return Conflict(f"index {row.name} has failed and accepts no updates: {row.message}; {remedy}", code="index_failed")
    return None
