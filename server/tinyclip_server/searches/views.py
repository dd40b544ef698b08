"""Documents of the API from rows of the database."""

from collections.abc import Sequence
from typing import NamedTuple

from tinyclip.artifacts.searches import SearchResult
from tinyclip.schemas import JobState, Search, SearchAction, SearchEvent, SearchPhase, SearchPost

from tinyclip_server.database.tables import SearchEventRow, SearchRow
from tinyclip_server.searches.service import etag
from tinyclip_server.searches.trials import KnownTrial, device_hours, teacher_quality, trial_view


class Counts(NamedTuple):
    """How many trials a search has."""

    begun: int = 0
    ended: int = 0


def search_view(
    search: SearchRow, counts: Counts, trials: Sequence[KnownTrial] = (), actions: Sequence[SearchAction] = ()
) -> Search:
    result = SearchResult.model_validate(search.result) if search.result is not None else SearchResult(front=[], reason="")
    return Search(
        id=search.id,
        name=search.name,
        project=search.project,
        state=JobState(search.state),
        phase=SearchPhase(search.phase),
        message=search.message,
        post=SearchPost.model_validate(search.post),
        trials=[trial_view(trial) for trial in trials],
        trials_begun=counts.begun,
        trials_ended=counts.ended,
        teacher_quality=teacher_quality(trials),
        front=result.front,
        recommended=result.recommended,
        reason=result.reason,
        importance=result.importance,
        device_hours=device_hours(trials) if trials else search.device_hours,
        actions=list(actions),
        etag=etag(search),
        created_at=search.created_at,
        updated_at=search.updated_at,
        finished_at=search.finished_at,
    )


def event_view(event: SearchEventRow) -> SearchEvent:
    return SearchEvent(
        id=event.seq, search=event.search_id, type=event.type, trial=event.trial, message=event.message, data=event.data,
        created_at=event.created_at,
    )
