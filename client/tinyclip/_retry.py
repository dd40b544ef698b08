"""When a call is made again, and how long we wait before."""

import asyncio
import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import tenacity

from tinyclip.errors import CannotReachServer, ProblemError

_PASSING = {429, 502, 503, 504}
_CUT_OFF = "http_500"
"""A 500 without a problem document: a server that is shutting down cuts a request off like that."""


@dataclass(frozen=True)
class Retries:
    """How patient the client is. Every call of ours is safe to repeat: POSTs carry an idempotency key or only ask."""

    attempts: int = 5
    for_seconds: float = 60.0
    """No wait is begun that would end later than this after the first try."""
    first_wait: float = 0.25
    """Doubles with each try, up to `longest_wait`; the real wait is drawn between nothing and that (full jitter)."""
    longest_wait: float = 8.0
    on_wait: Callable[[BaseException, float], None] | None = None
    """Told of a failure and of the seconds before the next try."""

    def lasting(self, seconds: float) -> "Retries":
        """The same pace for so long: what outlives a restart of the server."""
        return replace(self, attempts=1_000_000, for_seconds=seconds)

    def policy(self) -> dict[str, Any]:
        """Arguments for tenacity's sync and async loops."""
        return {
            "retry": tenacity.retry_if_exception(is_passing),
            "wait": lambda state: self.delay(state.attempt_number, state.outcome.exception() if state.outcome else None),
            "stop": tenacity.stop_any(tenacity.stop_after_attempt(self.attempts), tenacity.stop_before_delay(self.for_seconds)),
            "before_sleep": self._tell,
            "reraise": True,
        }

    def delay(self, failures: int, failure: BaseException | None) -> float:
        """Seconds to wait after so many failures in a row: what the server asked for, else a jittered guess."""
        jittered = random.uniform(0.0, min(self.longest_wait, self.first_wait * 2 ** min(failures, 30)))
        asked = failure.retry_after if isinstance(failure, ProblemError) else None
        return jittered if asked is None else asked + min(jittered, self.first_wait)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if self.on_wait is not None and failure is not None:
            self.on_wait(failure, state.upcoming_sleep)


class Patience:
    """Patience with a stream: renewed by every event, used up by failures in a row."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self.renew()

    def renew(self) -> None:
        self._failures = 0
        self._since: float | None = None

    def delay(self, failure: Exception) -> float:
        """Seconds to wait before the stream is opened again. Raises the failure when patience is used up."""
        now = time.monotonic()
        self._since = self._since or now
        self._failures += 1
        delay = self._retries.delay(self._failures, failure)
        used_up = self._failures >= self._retries.attempts or now - self._since + delay > self._retries.for_seconds
        if used_up or not is_passing(failure):
            raise failure
        return delay

    def sleep(self, failure: Exception) -> None:
        time.sleep(self.delay(failure))

    async def sleep_async(self, failure: Exception) -> None:
        await asyncio.sleep(self.delay(failure))


def is_passing(failure: BaseException) -> bool:
    """True of what may be gone at the next try."""
    if isinstance(failure, ProblemError):
        problem = failure.problem
        return problem.status in _PASSING or problem.retryable or problem.code == _CUT_OFF
    return isinstance(failure, CannotReachServer)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks us to wait: `Retry-After` as a number or as a date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
