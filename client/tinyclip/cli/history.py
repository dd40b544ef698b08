"""Events of jobs and searches, read page by page, each once."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tinyclip._client import Client
from tinyclip._http.calls import Call
from tinyclip.schemas import Event, Page, SearchEvent

EVENTS_PER_PAGE = 200

EventT = TypeVar("EventT", Event, SearchEvent)


class NewItems(Generic[EventT]):
    """A reader's position in a list of events that grows."""

    def __init__(self, client: Client, pages: Callable[..., Call[Page[EventT]]], patience: float) -> None:
        self._client = client
        self._pages: Callable[..., Call[Page[EventT]]] = pages
        self._retries = client.retries.lasting(patience)
        self._page_token: str | None = None
        self._last_id = 0

    def new(self) -> Iterator[EventT]:
        """Yield the events since the last call. The last page is read again, since it grows."""
        while True:
            page = self._client.send(self._pages(page_token=self._page_token), retries=self._retries)
            for event in page.items:
                if event.id > self._last_id:
                    self._last_id = event.id
                    yield event
            if page.next_page_token is None:
                return
            self._page_token = page.next_page_token
