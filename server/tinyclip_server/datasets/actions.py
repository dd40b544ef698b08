"""What a data set and its versions allow now: answers list it, and `service` and `versions` refuse everything else."""

from collections.abc import Mapping
from typing import get_args

from tinyclip.schemas import DatasetAction, DatasetState, DatasetVersionAction, Scope

from tinyclip_server.database.tables import DatasetRow
from tinyclip_server.datasets.repository import NO_USERS, Users
from tinyclip_server.http.callers import Caller
from tinyclip_server.problems import Conflict


def dataset_actions(caller: Caller, row: DatasetRow, users: Mapping[int, Users]) -> list[DatasetAction]:
    """Return what a data set allows to a caller; `users`: those of each version that has some."""
    if not caller.may(Scope.WRITE):
        return []
    used = next(iter(users.values()), NO_USERS)
    return [action for action in get_args(DatasetAction) if refusal(action, row, used) is None]


def version_actions(caller: Caller, row: DatasetRow, version: int, users: Mapping[int, Users]) -> list[DatasetVersionAction]:
    """Return what a version of a data set allows to a caller; `users` as above."""
    if not caller.may(Scope.WRITE):
        return []
    used = users.get(version, NO_USERS)
    return [action for action in get_args(DatasetVersionAction) if version_refusal(action, row, version, used) is None]


def refusal(action: DatasetAction, row: DatasetRow, users: Users = NO_USERS) -> Conflict | None:
    """Return why a data set does not allow an action; `users`: those of all its versions, if it is `delete`."""
    if row.state == DatasetState.DELETING:
        return Conflict(f"data set {row.name} is being deleted; wait until GET answers 404", code="dataset_deleting")
    return _in_use(row.name, users) if action == "delete" else None


def version_refusal(
    action: DatasetVersionAction, row: DatasetRow, version: int, users: Users = NO_USERS
) -> Conflict | None:
    """Return why a version does not allow an action; `users`: its own, if it is `delete`."""
    reference = f"{row.name}@{version}"
    if row.state == DatasetState.DELETING:
        return deleted(reference)
    if action != "delete":
        return None
    if (used := _in_use(reference, users)) is not None:
        return used
    if row.state == DatasetState.REGISTERING:  # which compares its shards with the newest version
        message = f"data set {row.name} is being registered; wait until it is ready, or delete all of it"
        return Conflict(message, code="dataset_registering")
    return None


def deleted(reference: str) -> Conflict:
    """Return the error of a request for a version that is deleted."""
    return Conflict(f"data set {reference} is deleted; name another version", code="dataset_deleted")


def _in_use(reference: str, users: Users) -> Conflict | None:
    if users.jobs:
        message = f"{', '.join(users.jobs)} trains on {reference}; cancel it, or wait until it has ended"
    elif users.reinforcements:
        message = f"{reference} has reinforcements, {', '.join(users.reinforcements)}; delete them first"
    else:
        return None
    return Conflict(message, code="dataset_in_use")
