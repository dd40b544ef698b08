"""Limits of requests a minute for each caller. Each server counts in its own memory."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from tinyclip.token_format import digest

from tinyclip_server.problems import TooManyRequests, Unauthorized
from tinyclip_server.settings import Settings

REFUSALS_PER_MINUTE = 60
"""Requests with an invalid token from one address; further ones are refused with 429 before the database is read, and so are
those with a token that this server has not seen yet."""
MAX_KNOWN = 10_000
"""Tokens that are remembered as valid; a forgotten one is known again after its next request."""


class RateLimits:
    """Request counts by token, and by address where there is no token."""

    def __init__(self, settings: Settings) -> None:
        most = settings.request_limit
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(most) if most else None
        self._refusals = RateLimitItemPerMinute(REFUSALS_PER_MINUTE)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def count(self, caller: str) -> None:
        """Count one request. Raises TooManyRequests."""
        if self._requests is not None and not await self._limiter.hit(self._requests, caller):
            raise await self._too_many(self._requests, caller, "requests with this token")

    @asynccontextmanager
    async def count_token(self, token: str, address: str) -> AsyncIterator[None]:
        """Count a request whose token the body reads from the database; above a limit it is not read.

        Raises TooManyRequests.
        """
        key = digest(token)
        known = key in self._known
        if known:
            await self.count(key)
        elif not await self._limiter.test(self._refusals, address):
            raise await self._too_many(self._refusals, address, "requests without a valid token")
        try:
            yield
        except Unauthorized:
            self._known.pop(key, None)
            raise
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if not known:
            await self.count(key)

    @asynccontextmanager
    async def count_refusals(self, caller: str) -> AsyncIterator[None]:
        """Count the body if it raises Unauthorized. Raises TooManyRequests in its place above the limit."""
        try:
            yield
        except Unauthorized as error:
            if not await self._limiter.hit(self._refusals, caller):
                raise await self._too_many(self._refusals, caller, "requests without a valid token") from error
            raise

    async def _too_many(self, limit: RateLimitItemPerMinute, caller: str, requests: str) -> TooManyRequests:
        window = await self._limiter.get_window_stats(limit, caller)
        wait = max(1, round(window.reset_time - time.time() + 0.5))
        return TooManyRequests(f"more than {limit.amount} {requests} a minute; try again in {wait} s", retry_after=wait)
