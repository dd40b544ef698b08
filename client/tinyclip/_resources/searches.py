"""Searches: the smallest student that meets constraints, and sweeps over settings of a spec."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from tinyclip._http.calls import Call, as_model, idempotency_header, no_content, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method, operation
from tinyclip._http.streams import Stream, follow
from tinyclip._http.waiting import Deadline
from tinyclip.schemas import JobState, Page, Search, SearchEvent, SearchPlan, SearchPost

_SURVIVES_RESTART_SECONDS = 300.0
_BETWEEN_POLLS_SECONDS = 2.0

Post = SearchPost | Mapping[str, Any]
"""A mapping is sent as it is, so that the server reports what is wrong with it."""


def create(search: Post, *, idempotency_key: str | None = None) -> Call[Search]:
    """Begin a search: `{"spec": …, "constraints": […], "vary": {…}, "budget": {…}}`.

    The same key and request return the same search, however often they are sent; by default the key is random.
    """
    headers = idempotency_header(idempotency_key)
    return Call("POST", path("searches"), as_model(Search), body=_document(search), headers=headers, wait=120.0)


def plan(search: Post) -> Call[SearchPlan]:
    """Plan a search without beginning it: its trials, estimated device-hours and warnings."""
    query = {"validate_only": "true"}
    return Call("POST", path("searches"), as_model(SearchPlan), query=query, body=_document(search), wait=120.0)


def page(
    *,
    state: JobState | str | Sequence[JobState | str] | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Search]]:
    """Return one page of searches without their trials, newest first: in any of the states."""
    query = {"state": state, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("searches"), as_model(Page[Search]), query=query)


def get(search_id: str) -> Call[Search]:
    """Return one search with its trials."""
    return Call("GET", path("searches", search_id), as_model(Search))


def cancel(search_id: str) -> Call[Search]:
    """Cancel a search and its jobs."""
    return _transition(search_id, "cancel")


def pause(search_id: str) -> Call[Search]:
    """Pause a search, and its jobs at a checkpoint."""
    return _transition(search_id, "pause")


def resume(search_id: str) -> Call[Search]:
    """Go on with a paused search and its jobs."""
    return _transition(search_id, "resume")


def delete(search_id: str) -> Call[None]:
    """Delete a search that has ended. Its jobs and their model versions stay."""
    return Call("DELETE", path("searches", search_id), no_content)


def events_page(search_id: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[SearchEvent]]:
    """Return one page of a search's events, oldest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("searches", search_id, "events"), as_model(Page[SearchEvent]), query=query)


def _document(search: Post) -> Any:
    return search.model_dump(mode="json", exclude_unset=True) if isinstance(search, SearchPost) else dict(search)


def _transition(search_id: str, verb: str) -> Call[Search]:
    return Call("POST", path("searches", search_id, verb), as_model(Search), headers=idempotency_header())


class SearchMethods(ResourceMethods):
    create = method(create)
    plan = method(plan)
    page = method(page)
    get = method(get)
    cancel = method(cancel)
    pause = method(pause)
    resume = method(resume)
    delete = method(delete)
    events_page = method(events_page)

    @iteration
    def list(self, *, state: JobState | str | Sequence[JobState | str] | None = None) -> AsyncGenerator[Search, None]:
        """Iterate over all searches without their trials, newest first."""
        return self._items(lambda token: page(state=state, page_token=token))

    @iteration
    def events(
        self, search_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncGenerator[SearchEvent, None]:
        """Iterate over a search's events as they happen until it has ended, from the one after `after`.

        `patience` is how many seconds the server may be away."""
        retries = self._transport.retries.lasting(patience)
        stream = Stream(path("searches", search_id, "events"), SearchEvent, after, retries)
        return follow(self._transport, stream, lambda: self._has_ended(search_id))

    @operation
    async def wait(
        self, search_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Search:
        """Wait until a search has ended, successfully or not, and return it. Raises `WaitTimeout` after `timeout` seconds."""
        deadline, retries = Deadline(f"{search_id} has not ended", timeout), self._transport.retries.lasting(patience)
        search = await self._transport.send(get(search_id))
        while not search.state.terminal:
            await self._transport.sleep(deadline.remaining(_BETWEEN_POLLS_SECONDS))
            search = await self._transport.send(get(search_id), retries)
        return search

    async def _has_ended(self, search_id: str) -> bool:
        return (await self._transport.send(get(search_id))).state.terminal


class Searches(SearchMethods, Resource):
    """`client.searches`."""


class AsyncSearches(SearchMethods, AsyncResource):
    """`async_client.searches`."""
