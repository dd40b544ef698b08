"""Waiting for something to change: the same loop, asleep in its thread or in its task."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tinyclip.errors import WaitTimeout

T = TypeVar("T")

POLL_SECONDS = 0.5


class Deadline:
    """A moment after which waiting is an error; `timeout` None never comes."""

    def __init__(self, what: str, timeout: float | None) -> None:
        self._what = what
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self, most: float) -> float:
        """Seconds that may still be waited, at most `most`. Raises `WaitTimeout` when there are none."""
        if self._end is None:
            return most
        left = self._end - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"{self._what} after {self._timeout:g} s; it goes on, only the waiting ended")
        return min(most, left)


def poll(
    fetch: Callable[[], T], done: Callable[[T], bool], deadline: Deadline, on_progress: Callable[[T], object] = lambda value: None
) -> T:
    """Fetches until it is done; `on_progress` sees what is not done yet."""
    while not done(value := fetch()):
        on_progress(value)
        time.sleep(deadline.left(POLL_SECONDS))
    return value


async def poll_async(
    fetch: Callable[[], Awaitable[T]],
    done: Callable[[T], bool],
    deadline: Deadline,
    on_progress: Callable[[T], object] = lambda value: None,
) -> T:
    """Fetches until it is done; `on_progress` sees what is not done yet."""
    while not done(value := await fetch()):
        on_progress(value)
        await asyncio.sleep(deadline.left(POLL_SECONDS))
    return value
