"""Retries: which failures are repeated, and how long to wait before."""

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import tenacity

from tinyclip.errors import CannotReachServer, ProblemError

_TRANSIENT_STATUSES = {429, 502, 503, 504}
_INTERRUPTED = "http_500"
"""The code of a 500 without a problem document: a server that is shutting down interrupts requests with it."""
_IN_FLIGHT = "idempotency_in_flight"
"""The code for a repeated request whose first sending the server is still answering."""


@dataclass(frozen=True)
class Retries:
    """The retry policy of a client. Every call is safe to repeat: POSTs carry an idempotency key or only read."""

    attempts: int = 5
    for_seconds: float = 60.0
    """No wait begins that would end later than this after the first attempt."""
    in_flight_seconds: float = 300.0
    """The same for a request that the server is still answering, such as a submission with a slow plan. The number of attempts
    does not count then, unless it is 1."""
    first_wait: float = 0.25
    """Doubles with each attempt, up to `longest_wait`; the real wait is drawn between 0 and that (full jitter)."""
    longest_wait: float = 8.0
    on_wait: Callable[[BaseException, float], None] | None = None
    """Receives a failure and the seconds until the next attempt."""

    def lasting(self, seconds: float) -> "Retries":
        """Return a policy with the same waits for that long, such as outlasts a restart of the server."""
        return replace(self, attempts=1_000_000, for_seconds=seconds)

    def policy(self) -> dict[str, Any]:
        """Return the arguments of tenacity's retry loop."""
        return {
            "retry": tenacity.retry_if_exception(is_transient),
            "wait": lambda state: self.delay(state.attempt_number, state.outcome.exception() if state.outcome else None),
            "stop": self._used_up,
            "before_sleep": self._report,
            "reraise": True,
        }

    def delay(self, failures: int, failure: BaseException | None) -> float:
        """Return the seconds to wait after that many failures in a row: `Retry-After` if given, else jittered backoff."""
        jittered = random.uniform(0.0, min(self.longest_wait, self.first_wait * 2 ** min(failures, 30)))
        requested = failure.retry_after if isinstance(failure, ProblemError) else None
        return jittered if requested is None else requested + min(jittered, self.first_wait)

    def _used_up(self, state: tenacity.RetryCallState) -> bool:
        """Return whether the last failure is final."""
        failure = state.outcome.exception() if state.outcome else None
        if self.attempts > 1 and isinstance(failure, ProblemError) and failure.problem.code == _IN_FLIGHT:
            return tenacity.stop_before_delay(max(self.in_flight_seconds, self.for_seconds))(state)
        return state.attempt_number >= self.attempts or tenacity.stop_before_delay(self.for_seconds)(state)

    def _report(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if self.on_wait is not None and failure is not None:
            self.on_wait(failure, state.upcoming_sleep)


class Patience:
    """The retry budget of a stream: renewed by everything that arrives, used up by failures in a row."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self.renew()

    def renew(self) -> None:
        self._failures = 0
        self._since: float | None = None

    def delay(self, failure: Exception) -> float:
        """Return the seconds to wait before the stream is reopened. Raises the failure if the budget is used up."""
        now = time.monotonic()
        self._since = self._since or now
        self._failures += 1
        delay = self._retries.delay(self._failures, failure)
        used_up = self._failures >= self._retries.attempts or now - self._since + delay > self._retries.for_seconds
        if used_up or not is_transient(failure):
            raise failure
        return delay


def is_transient(failure: BaseException) -> bool:
    """Return whether another attempt may succeed."""
    if isinstance(failure, ProblemError):
        problem = failure.problem
        return problem.status in _TRANSIENT_STATUSES or problem.retryable or problem.code == _INTERRUPTED
    return isinstance(failure, CannotReachServer)


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a `Retry-After` header, which is a number or a date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
