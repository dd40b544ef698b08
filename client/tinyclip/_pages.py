"""Lists that come in pages, read as if they came whole.

`describe` gives the call for the page that a token names; None is the first.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from tinyclip._calls import Call
from tinyclip._transport import AsyncTransport, Transport
from tinyclip.schemas import Page

T = TypeVar("T")


def every(transport: Transport, describe: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
    """All items; a page is fetched when its first item is asked for."""
    token: str | None = None
    while True:
        page = transport.send(describe(token))
        yield from page.items
        if (token := page.next_page_token) is None:
            return


async def every_async(transport: AsyncTransport, describe: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
    """All items; a page is fetched when its first item is asked for."""
    token: str | None = None
    while True:
        page = await transport.send(describe(token))
        for item in page.items:
            yield item
        if (token := page.next_page_token) is None:
            return
