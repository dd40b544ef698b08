"""Items of many requests computed together: in which order, how many, and what happens when they are too many or not wanted."""

import asyncio

import numpy as np
import pytest
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.batching import Admission, BatchQueue
from tinyclip_workers.serving.request_context import RequestContext, set_current
from tinyclip_workers.types import Matrix


class Engine:
    """Squares numbers, remembers the batches, and can be held or made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fails_at: int | None = None

    async def compute(self, items: list[int]) -> Matrix:
        self.batches.append(items)
        await self.go.wait()
        if self.fails_at in items:
            raise ValueError("the engine is broken")
        return np.array([[item, item**2] for item in items], np.float32)


def queue(engine: Engine, size: int = 4, wait_s: float = 0.01) -> BatchQueue[int]:
    return BatchQueue(engine.compute, size, wait_s)


async def test_each_gets_its_own_rows_in_order() -> None:
    batches = queue(Engine())
    wanted = [list(range(start, start + length)) for start, length in ((0, 1), (10, 3), (20, 9), (40, 4))]

    answers = await asyncio.gather(*map(batches.encode, wanted))

    for items, rows in zip(wanted, answers, strict=True):
        np.testing.assert_array_equal(rows, [[item, item**2] for item in items])


async def test_requests_share_full_batches() -> None:
    engine = Engine()
    batches = queue(engine)

    await asyncio.gather(*(batches.encode([i, i + 100]) for i in range(6)))

    assert [len(batch) for batch in engine.batches] == [4, 4, 4]
    assert sorted(item for batch in engine.batches for item in batch) == sorted([*range(6), *range(100, 106)])


async def test_a_small_request_does_not_stand_behind_a_large_one() -> None:
    engine = Engine()
    batches = queue(engine)
    large = asyncio.create_task(batches.encode(range(1000)))
    await asyncio.sleep(0)

    await batches.encode([-1])

    assert any(-1 in batch for batch in engine.batches[:3])
    assert len(await large) == 1000


async def test_what_was_cancelled_is_not_computed() -> None:
    engine = Engine()
    engine.go.clear()
    batches = queue(engine)
    first = asyncio.create_task(batches.encode([1, 2, 3, 4]))
    await asyncio.sleep(0.03)
    unwanted, wanted = (asyncio.create_task(batches.encode(items)) for items in ([5, 6, 7, 8, 9], [10]))
    await asyncio.sleep(0)

    unwanted.cancel()
    await asyncio.sleep(0)
    engine.go.set()

    np.testing.assert_array_equal(await wanted, [[10, 100]])
    await first
    assert engine.batches == [[1, 2, 3, 4], [10]]


async def test_a_broken_batch_fails_its_requests_and_no_others() -> None:
    engine = Engine()
    engine.fails_at = 3
    batches = queue(engine)

    broken = await asyncio.gather(batches.encode([1, 2]), batches.encode([3, 4]), return_exceptions=True)
    well = await batches.encode([5])

    assert [str(error) for error in broken] == ["the engine is broken"] * 2
    np.testing.assert_array_equal(well, [[5, 25]])


class Watcher:
    """Breaks the queue itself, once."""

    def __init__(self) -> None:
        self.breaks = True

    def __call__(self, items: int) -> None:
        if self.breaks:
            self.breaks = False
            raise OSError("no metrics")


async def test_a_broken_queue_answers_all_at_once_and_goes_on() -> None:
    engine = Engine()
    batches: BatchQueue[int] = BatchQueue(engine.compute, 2, 0.01, Watcher())

    async with asyncio.timeout(5):
        waiting = [batches.encode([1, 2]), batches.encode([3]), batches.encode(range(10, 20))]
        broken = await asyncio.gather(*waiting, return_exceptions=True)
        well = await batches.encode([5])

    assert [repr(error) for error in broken] == ["OSError('no metrics')"] * 3
    np.testing.assert_array_equal(well, [[5, 25]])
    assert engine.batches == [[5]]


async def test_a_stopped_queue_leaves_nobody_waiting() -> None:
    engine = Engine()
    engine.go.clear()
    batches = queue(engine)
    waiting = [asyncio.create_task(batches.encode([i, i + 1])) for i in range(4)]
    await asyncio.sleep(0.03)

    assert batches._worker is not None
    batches._worker.cancel()
    async with asyncio.timeout(5):
        told = await asyncio.gather(*waiting, return_exceptions=True)

    assert [str(error) for error in told] == ["the batch queue was stopped"] * 4
    engine.go.set()
    np.testing.assert_array_equal(await batches.encode([5]), [[5, 25]])


async def test_waiting_and_computing_are_told_apart() -> None:
    engine = Engine()
    engine.go.clear()
    batches = queue(engine, size=1)
    asked = RequestContext("req", "POST")
    first = asyncio.create_task(batches.encode([1]))
    await asyncio.sleep(0.02)
    set_current(asked)
    second = asyncio.create_task(batches.encode([2]))

    await asyncio.sleep(0.1)
    engine.go.set()
    await asyncio.gather(first, second)

    assert asked.seconds["wait"] >= 0.09
    assert asked.seconds["encode"] < 0.05


class TestAdmission:
    def test_one_more_than_may_wait_is_told_when_to_come_back(self) -> None:
        told: list[int] = []
        admission = Admission("images", 3, told.append)

        with admission.enter(2), admission.enter(5), pytest.raises(ProblemError) as refused, admission.enter(1):
            pass

        assert refused.value.problem.status == 429
        assert refused.value.problem.retryable
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        assert "7 images wait already" in refused.value.problem.detail
        assert told == [2, 7, 2, 0]

    def test_places_are_given_back_by_those_that_fail(self) -> None:
        admission = Admission("texts", 1)

        for _ in range(3):
            with pytest.raises(ValueError, match="bad"), admission.enter(1):
                raise ValueError("bad")

        assert admission.waiting == 0

    def test_the_time_to_come_back_follows_the_pace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr("tinyclip_workers.serving.replica.batching.time.monotonic", lambda: now)
        admission = Admission("images", 10)
        with admission.enter(20):
            with pytest.raises(ProblemError) as unknown, admission.enter(1):
                pass
            admission._done, now = 5, 110.0  # 2 s each
            with pytest.raises(ProblemError) as known, admission.enter(1):
                pass

        assert unknown.value.headers["Retry-After"] == "2"
        assert known.value.headers["Retry-After"] == "40"
