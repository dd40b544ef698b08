"""Limits on how long a caller waits."""

import time

from tinyclip.errors import WaitTimeout


class Deadline:
    """The end of a wait; without a `timeout` it never comes."""

    def __init__(self, expectation: str, timeout: float | None) -> None:
        self._expectation = expectation
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self, most: float) -> float:
        """Return the seconds that remain, at most `most`. Raises `WaitTimeout` if there are none."""
        if self._end is None:
            return most
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise WaitTimeout(f"{self._expectation} after {self._timeout:g} s; only the waiting ended, not the work")
        return min(most, remaining)
