"""Batches of items from many requests: `Admission` limits how many may wait, `BatchQueue` decides which are computed next."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import numpy as np

from tinyclip_workers.serving.problems import ProblemError, problem_error
from tinyclip_workers.serving.request_context import add_seconds
from tinyclip_workers.types import Matrix

Item = TypeVar("Item")

log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60


class Admission:
    """Back-pressure: the number of items that a replica has admitted and not finished, with an upper limit."""

    def __init__(self, kind: str, limit: int, on_change: Callable[[int], None] = lambda waiting: None) -> None:
        """`kind` names the items in problem documents; `on_change` receives each new number of waiting items."""
        self._kind, self._limit, self._on_change = kind, limit, on_change
        self.waiting = self._done = 0
        self._busy_since = 0.0

    @contextmanager
    def enter(self, items: int) -> Iterator[None]:
        """Count these items as waiting in the block. Raises ProblemError (429) if the limit is reached already.

        The last one admitted may exceed the limit: otherwise a large request would never be admitted among small ones.
        """
        if self.waiting >= self._limit:
            raise self._busy()
        if self.waiting == 0:
            self._busy_since, self._done = time.monotonic(), 0
        self.waiting += items
        self._on_change(self.waiting)
        try:
            yield
        finally:
            self.waiting -= items
            self._done += items
            self._on_change(self.waiting)

    def _busy(self) -> ProblemError:
        after = self._retry_after_s()
        detail = f"{self.waiting:,} {self._kind} wait already, and at most {self._limit:,} may; try again in {after} s"
        return problem_error(429, "busy", "Too many requests", detail, retryable=True, headers={"Retry-After": str(after)})

    def _retry_after_s(self) -> int:
        """Estimate when the waiting items are done, from the rate since the replica was last idle."""
        if not self._done:
            return 2
        seconds_per_item = (time.monotonic() - self._busy_since) / self._done
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(self.waiting * seconds_per_item)))


class _QueuedRequest(Generic[Item]):
    """The items of one `encode` call."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items, self.next, self.left = items, 0, len(items)
        self.rows: list[Matrix | None] = [None] * len(items)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.encode_s = 0.0


class BatchQueue(Generic[Item]):
    """Collects items into batches and computes one batch at a time. For one event loop.

    Scheduling is round-robin: a batch takes some items of each waiting request, so that one text does not wait behind fifty
    thousand labels. Items of a cancelled request are dropped.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Awaitable[Matrix]],
        size: int,
        wait_s: float,
        on_batch: Callable[[int], None] = lambda items: None,
    ) -> None:
        """`compute` turns items into rows; `wait_s` is the batching window of an idle queue; `on_batch` receives batch sizes."""
        self._compute, self._size, self._wait_s, self._on_batch = compute, size, wait_s, on_batch
        self._items_per_turn = max(1, size // 4)
        self._queue: deque[_QueuedRequest[Item]] = deque()
        self._unanswered: set[_QueuedRequest[Item]] = set()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def encode(self, items: Sequence[Item]) -> Matrix:
        """Return (items, E). Raises what `compute` raised for a batch with one of the items, or what stopped the queue."""
        request = _QueuedRequest(items)
        self._queue.append(request)
        self._unanswered.add(request)
        if self._queued_items() >= self._size:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        started = time.monotonic()
        try:
            await request.done
        finally:
            self._unanswered.discard(request)
        add_seconds("encode", request.encode_s)
        add_seconds("wait", time.monotonic() - started - request.encode_s)
        return np.stack([row for row in request.rows if row is not None])

    async def _run(self) -> None:
        """Compute batches until the queue is empty. A failure of the queue itself is raised to every waiting request."""
        try:
            await self._compute_all()
        except Exception as error:  # not of the engine; the next request starts a new worker
            log.exception("the batch queue failed; all waiting requests fail with this error")
            self._fail_all(error)
        except BaseException:
            self._fail_all(RuntimeError("the batch queue was stopped"))
            raise

    def _fail_all(self, error: Exception) -> None:
        self._queue.clear()
        for request in self._unanswered:
            if not request.done.done():
                request.done.set_exception(error)

    async def _compute_all(self) -> None:
        await self._batching_window()
        while batch := self._next_batch():
            started = time.monotonic()
            try:
                rows = await self._compute([request.items[i] for request, i in batch])
                assert len(rows) == len(batch), (len(rows), len(batch))
            except Exception as error:  # of the engine: it fails the requests of this batch only
                for request, _ in batch:
                    if not request.done.done():
                        request.done.set_exception(error)
            else:
                self._distribute(batch, rows, time.monotonic() - started)

    async def _batching_window(self) -> None:
        """Wait for more items after the first."""
        self._full.clear()
        if self._wait_s and self._queued_items() < self._size:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()

    def _queued_items(self) -> int:
        """Return the number of queued items, counted up to a full batch."""
        count = 0
        for request in self._queue:
            count += len(request.items) - request.next
            if count >= self._size:
                break
        return count

    def _next_batch(self) -> list[tuple[_QueuedRequest[Item], int]]:
        """Take (request, position of the item) for one batch: a few items of each request in turn."""
        batch: list[tuple[_QueuedRequest[Item], int]] = []
        while self._queue and len(batch) < self._size:
            request = self._queue.popleft()
            if request.done.done():
                continue
            end = min(request.next + self._items_per_turn, request.next + self._size - len(batch), len(request.items))
            batch += [(request, i) for i in range(request.next, end)]
            request.next = end
            if end < len(request.items):
                self._queue.append(request)
        if batch:
            self._on_batch(len(batch))
        return batch

    def _distribute(self, batch: list[tuple[_QueuedRequest[Item], int]], rows: Matrix, seconds: float) -> None:
        for request in {id(request): request for request, _ in batch}.values():
            request.encode_s += seconds
        for (request, i), row in zip(batch, rows, strict=True):
            request.rows[i] = row
            request.left -= 1
            if request.left == 0 and not request.done.done():
                request.done.set_result(None)
