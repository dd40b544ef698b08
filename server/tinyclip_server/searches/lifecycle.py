"""The state machine of searches: the legal transitions, and the only function that makes them.

A transition and its event belong to one transaction. States are those of jobs; a search is never `starting`.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import SearchEventRow, SearchRow
from tinyclip_server.problems import Conflict

S = JobState

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset({S.RUNNING, S.PAUSING, S.CANCELLING, S.FAILED}),
    S.RUNNING: frozenset({S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSING: frozenset({S.PAUSED, S.CANCELLING, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLING}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}
ACTIVE = (S.QUEUED, S.RUNNING, S.PAUSING, S.CANCELLING)
"""States in which the loop has something to do."""
NEXT_STEP: Mapping[JobState, str] = {
    S.QUEUED: "it starts at once",
    S.RUNNING: "cancel or pause it first",
    S.PAUSING: "wait until it is paused",
    S.PAUSED: "resume or cancel it",
    S.CANCELLING: "wait until it is cancelled",
    S.SUCCEEDED: "create another one",
    S.FAILED: "create another one",
    S.CANCELLED: "create another one",
}
"""What a user can do instead of an illegal transition, by the search's state."""


def can_become(search: SearchRow, state: JobState) -> bool:
    """Return whether a transition of a search is legal."""
    return state in TRANSITIONS[JobState(search.state)]


def change_state(session: AsyncSession, search: SearchRow, state: JobState, message: str) -> None:
    """Change a search's state and record `search.<state>`. Raises Conflict for an illegal transition."""
    if not can_become(search, state):
        message = f"search {search.id} is {search.state}: it cannot become {state.value}; {NEXT_STEP[S(search.state)]}"
        raise Conflict(message, code="illegal_transition")
    search.state, search.message = state, message
    search.revision += 1
    if state.terminal:
        search.finished_at = now()
        search.lease_owner, search.lease_until = "", None
    record(session, search, f"search.{state.value}", message)


def record(
    session: AsyncSession, search: SearchRow, type: str, message: str, *, trial: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Append an event to a search's history, which changes the version of the search."""
    search.last_event += 1
    search.updated_at = now()
    session.add(
        SearchEventRow(
            search_id=search.id, seq=search.last_event, type=type, trial=trial, message=message, data=data or {},
            created_at=search.updated_at,
        )
    )


class IllegalState(AssertionError):
    """An illegal transition, which is a bug."""


@event.listens_for(SearchRow.state, "set", active_history=True)
def _guard(search: SearchRow, state: str, before: Any, _: Any) -> None:
    if isinstance(before, str) and state not in TRANSITIONS[JobState(before)]:
        raise IllegalState(f"search {search.id}: {before} cannot become {state}")
