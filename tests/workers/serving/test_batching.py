"""Batches of items from many requests: their order, their size, failures, cancellation and back-pressure."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import batching
from tinyclip_workers.serving.replica.batching import Admission, BatchQueue
from tinyclip_workers.serving.request_context import RequestContext, set_current
from tinyclip_workers.types import Matrix


class Engine:
    """Squares numbers, records the batches, and can be blocked or made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.called = asyncio.Event()
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.fails_at: int | None = None

    async def compute(self, items: list[int]) -> Matrix:
        self.batches.append(items)
        self.called.set()
        await self.unblocked.wait()
        if self.fails_at in items:
            raise ValueError("the engine is broken")
        return np.array([[item, item**2] for item in items], np.float32)


def queue(engine: Engine, size: int = 4, wait_s: float = 0.01) -> BatchQueue[int]:
    return BatchQueue(engine.compute, size, wait_s)


async def test_each_request_gets_its_own_rows_in_order() -> None:
    batches = queue(Engine())
    requests = [list(range(start, start + length)) for start, length in ((0, 1), (10, 3), (20, 9), (40, 4))]

    answers = await asyncio.gather(*map(batches.encode, requests))

    for items, rows in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(rows, [[item, item**2] for item in items])


async def test_requests_share_full_batches() -> None:
    engine = Engine()
    batches = queue(engine)

    await asyncio.gather(*(batches.encode([i, i + 100]) for i in range(6)))

    assert [len(batch) for batch in engine.batches] == [4, 4, 4]
    assert sorted(item for batch in engine.batches for item in batch) == sorted([*range(6), *range(100, 106)])


async def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    engine = Engine()
    batches = queue(engine)
    large = asyncio.create_task(batches.encode(range(1000)))
    await asyncio.sleep(0)

    await batches.encode([-1])

    assert any(-1 in batch for batch in engine.batches[:3])
    assert len(await large) == 1000


async def test_items_of_a_cancelled_request_are_not_computed() -> None:
    engine = Engine()
    engine.unblocked.clear()
    batches = queue(engine)
    first = asyncio.create_task(batches.encode([1, 2, 3, 4]))
    await engine.called.wait()
    cancelled, other = (asyncio.create_task(batches.encode(items)) for items in ([5, 6, 7, 8, 9], [10]))
    await asyncio.sleep(0)

    cancelled.cancel()
    await asyncio.sleep(0)
    engine.unblocked.set()

    np.testing.assert_array_equal(await other, [[10, 100]])
    await first
    assert engine.batches == [[1, 2, 3, 4], [10]]


async def test_a_failed_batch_fails_only_its_requests() -> None:
    engine = Engine()
    engine.fails_at = 3
    batches = queue(engine)

    failed = await asyncio.gather(batches.encode([1, 2]), batches.encode([3, 4]), return_exceptions=True)
    later = await batches.encode([5])

    assert [str(error) for error in failed] == ["the engine is broken"] * 2
    np.testing.assert_array_equal(later, [[5, 25]])


class FailsOnce:
    """An `on_batch` that breaks the queue itself at its first call."""

    def __init__(self) -> None:
        self.fails = True

    def __call__(self, items: int) -> None:
        if self.fails:
            self.fails = False
            raise OSError("no metrics")


async def test_a_failed_queue_fails_every_request_at_once_and_serves_the_next() -> None:
    engine = Engine()
    batches: BatchQueue[int] = BatchQueue(engine.compute, 2, 0.01, FailsOnce())

    async with asyncio.timeout(5):
        waiting = [batches.encode([1, 2]), batches.encode([3]), batches.encode(range(10, 20))]
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        later = await batches.encode([5])

    assert [repr(error) for error in failed] == ["OSError('no metrics')"] * 3
    np.testing.assert_array_equal(later, [[5, 25]])
    assert engine.batches == [[5]]


async def test_a_stopped_queue_fails_every_request() -> None:
    engine = Engine()
    engine.unblocked.clear()
    batches = queue(engine)
    waiting = [asyncio.create_task(batches.encode([i, i + 1])) for i in range(4)]
    await engine.called.wait()

    assert batches._worker is not None
    batches._worker.cancel()
    async with asyncio.timeout(5):
        failed = await asyncio.gather(*waiting, return_exceptions=True)

    assert [str(error) for error in failed] == ["the batch queue was stopped"] * 4
    engine.unblocked.set()
    np.testing.assert_array_equal(await batches.encode([5]), [[5, 25]])


async def test_waiting_and_computing_are_separate_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = Engine()
    engine.unblocked.clear()
    batches = queue(engine, size=1)
    context = RequestContext("req", "POST")
    first = asyncio.create_task(batches.encode([1]))
    await engine.called.wait()
    set_current(context)
    second = asyncio.create_task(batches.encode([2]))
    await asyncio.sleep(0)

    now[0] = 0.1
    engine.unblocked.set()
    await asyncio.gather(first, second)

    assert context.seconds["wait"] >= 0.09
    assert context.seconds["encode"] < 0.05


class TestAdmission:
    def test_above_the_limit_a_request_is_rejected_with_a_time_to_retry(self) -> None:
        waiting: list[int] = []
        admission = Admission("images", 3, waiting.append)

        with admission.enter(2), admission.enter(5), pytest.raises(ProblemError) as rejected, admission.enter(1):
            pass

        assert rejected.value.problem.status == 429
        assert rejected.value.problem.retryable
        assert 1 <= int(rejected.value.headers["Retry-After"]) <= 60
        assert "7 images wait already" in rejected.value.problem.detail
        assert waiting == [2, 7, 2, 0]

    def test_failed_requests_release_their_places(self) -> None:
        admission = Admission("texts", 1)

        for _ in range(3):
            with pytest.raises(ValueError, match="bad"), admission.enter(1):
                raise ValueError("bad")

        assert admission.waiting == 0

    def test_the_time_to_retry_follows_the_throughput(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: now[0]))
        admission = Admission("images", 10)
        with admission.enter(20):
            with pytest.raises(ProblemError) as unknown, admission.enter(1):
                pass
            admission._done, now[0] = 5, 110.0  # 2 s each
            with pytest.raises(ProblemError) as known, admission.enter(1):
                pass

        assert unknown.value.headers["Retry-After"] == "2"
        assert known.value.headers["Retry-After"] == "40"
