"""Items of many requests, computed together: who may still join (`Admission`), and who is taken next (`BatchQueue`)."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import numpy as np

from tinyclip_workers.serving.queries.problems import Refusal, refuse
from tinyclip_workers.serving.queries.timings import spent
from tinyclip_workers.types import Matrix

Item = TypeVar("Item")

log = logging.getLogger(__name__)

LONGEST_RETRY_S = 60


class Admission:
    """How many items are on their way through a replica, and no to more of them."""

    def __init__(self, kind: str, most: int, watch: Callable[[int], None] = lambda waiting: None) -> None:
        """`kind` is what problems call the items; `watch` is told each new number of waiting ones."""
        self._kind, self._most, self._watch = kind, most, watch
        self.waiting = self._done = 0
        self._busy_since = 0.0

    @contextmanager
    def enter(self, items: int) -> Iterator[None]:
        """Holds a place for these items. Raises Refusal (429) if as many as may wait do so already.

        The last one in may bring any number: else a large request would never be let in while small ones come.
        """
        if self.waiting >= self._most:
            raise self._busy()
        if self.waiting == 0:
            self._busy_since, self._done = time.monotonic(), 0
        self.waiting += items
        self._watch(self.waiting)
        try:
            yield
        finally:
            self.waiting -= items
            self._done += items
            self._watch(self.waiting)

    def _busy(self) -> Refusal:
        after = self._seconds_left()
        detail = f"{self.waiting:,} {self._kind} wait already, and at most {self._most:,} may; try again in {after} s"
        return refuse(429, "busy", "Too many requests", detail, retryable=True, headers={"Retry-After": str(after)})

    def _seconds_left(self) -> int:
        """Until those that wait are done, at the pace since the replica was last idle."""
        if not self._done:
            return 2
        pace = (time.monotonic() - self._busy_since) / self._done
        return max(1, min(LONGEST_RETRY_S, math.ceil(self.waiting * pace)))


class _Share(Generic[Item]):
    """What one request has in the queue."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items, self.next, self.left = items, 0, len(items)
        self.rows: list[Matrix | None] = [None] * len(items)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.encode_s = 0.0


class BatchQueue(Generic[Item]):
    """Gathers items into batches, one computed at a time. For one event loop.

    Requests take turns: a batch has a part of each that waits, so that one text does not stand behind fifty thousand labels.
    What belongs to a request that was cancelled is not computed.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Awaitable[Matrix]],
        size: int,
        wait_s: float,
        watch: Callable[[int], None] = lambda items: None,
    ) -> None:
        """`compute` turns items into rows; a first one waits `wait_s` for company; `watch` is told each batch's size."""
        self._compute, self._size, self._wait_s, self._watch = compute, size, wait_s, watch
        self._turn = max(1, size // 4)
        self._shares: deque[_Share[Item]] = deque()
        self._unanswered: set[_Share[Item]] = set()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def encode(self, items: Sequence[Item]) -> Matrix:
        """(items, E). Raises what `compute` raised for a batch that one of the items was in, or what broke the queue."""
        share = _Share(items)
        self._shares.append(share)
        self._unanswered.add(share)
        if self._waiting() >= self._size:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        began = time.monotonic()
        try:
            await share.done
        finally:
            self._unanswered.discard(share)
        spent("encode", share.encode_s)
        spent("wait", time.monotonic() - began - share.encode_s)
        return np.stack([row for row in share.rows if row is not None])

    async def _work(self) -> None:
        """Until nothing waits any more. If that breaks, all who wait are told at once, and the next to come begins it anew."""
        try:
            await self._compute_all()
        except Exception as error:  # of the queue itself or of who watches it: nobody else would answer those who wait
            log.exception("the batch queue broke; those who waited are answered with the error")
            self._give_up(error)
        except BaseException:
            self._give_up(RuntimeError("the batch queue was stopped"))
            raise

    def _give_up(self, error: Exception) -> None:
        self._shares.clear()
        for share in self._unanswered:
            if not share.done.done():
                share.done.set_exception(error)

    async def _compute_all(self) -> None:
        await self._company()
        while taken := self._take():
            began = time.monotonic()
            try:
                rows = await self._compute([share.items[i] for share, i in taken])
                assert len(rows) == len(taken), (len(rows), len(taken))
            except Exception as error:  # of the engine: each request of this batch is told
                for share, _ in taken:
                    if not share.done.done():
                        share.done.set_exception(error)
            else:
                self._give(taken, rows, time.monotonic() - began)

    async def _company(self) -> None:
        """A moment for others to join the first."""
        self._full.clear()
        if self._wait_s and self._waiting() < self._size:
            with suppress(TimeoutError):  # nobody else came
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()

    def _waiting(self) -> int:
        """Items, counted up to a full batch."""
        count = 0
        for share in self._shares:
            count += len(share.items) - share.next
            if count >= self._size:
                break
        return count

    def _take(self) -> list[tuple[_Share[Item], int]]:
        """The next batch: a few items of each request in turn."""
        taken: list[tuple[_Share[Item], int]] = []
        while self._shares and len(taken) < self._size:
            share = self._shares.popleft()
            if share.done.done():
                continue
            end = min(share.next + self._turn, share.next + self._size - len(taken), len(share.items))
            taken += [(share, i) for i in range(share.next, end)]
            share.next = end
            if end < len(share.items):
                self._shares.append(share)
        if taken:
            self._watch(len(taken))
        return taken

    def _give(self, taken: list[tuple[_Share[Item], int]], rows: Matrix, seconds: float) -> None:
        for share in {id(share): share for share, _ in taken}.values():
            share.encode_s += seconds
        for (share, i), row in zip(taken, rows, strict=True):
            share.rows[i] = row
            share.left -= 1
            if share.left == 0 and not share.done.done():
                share.done.set_result(None)
