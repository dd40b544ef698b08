"""What an export allows now: answers list it, and `service` does nothing else."""

from tinyclip.schemas import ExportAction, ExportState, Scope

from tinyclip_server.database.tables import ExportRow
from tinyclip_server.http.callers import Caller


def allowed(caller: Caller, row: ExportRow) -> list[ExportAction]:
    """Return what an export allows to a caller."""
    return possible(row) if caller.may(Scope.WRITE) else []


def possible(row: ExportRow) -> list[ExportAction]:
    """Return what an export allows to a caller who may write."""
    actions: dict[ExportAction, bool] = {
        "retry": row.state == ExportState.FAILED,
        "delete": row.state != ExportState.DELETING,
    }
    return [action for action, is_possible in actions.items() if is_possible]
