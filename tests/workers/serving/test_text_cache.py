"""Cached text embeddings: computed once for all callers, without blocking others."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import text_cache
from tinyclip_workers.serving.replica.batching import Admission
from tinyclip_workers.serving.replica.text_cache import LruCache, TextCache
from tinyclip_workers.types import Matrix

LABELS, TEMPLATES = [f"label {i}" for i in range(10)], ["a {}.", "the {}!"]


class Engine:
    """Embeds a text by its letters; it can be blocked, and limits the texts that it admits."""

    def __init__(self, limit: int = 1000) -> None:
        self.texts: list[str] = []
        self.calls: list[int] = []
        self.called = asyncio.Event()
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.admission = Admission("texts", limit)

    async def encode(self, texts: list[str]) -> Matrix:
        with self.admission.enter(len(texts)):
            self.texts += texts
            self.calls.append(len(texts))
            self.called.set()
            await self.unblocked.wait()
            await asyncio.sleep(0)
            return np.array([row(text) for text in texts])


def row(text: str) -> Matrix:
    counts = np.array([text.count(letter) + 1 for letter in "abel0123456789!"], np.float32)
    return np.asarray(counts / np.linalg.norm(counts), np.float32)


def expected(labels: list[str]) -> Matrix:
    means = np.array([(row(f"a {label}.") + row(f"the {label}!")) / 2 for label in labels])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "CHUNK_TEXTS", 6)
    monkeypatch.setattr(text_cache, "BUSY_RETRY_SECONDS", 0.001)


@pytest.fixture
def lookups() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def make_cache(lookups: list[tuple[int, int]]) -> Callable[[Engine], TextCache]:
    return lambda engine: TextCache(engine.encode, 10**6, lambda hits, misses: lookups.append((hits, misses)))


MakeCache = Callable[[Engine], TextCache]


@pytest.mark.usefixtures("small_chunks")
async def test_a_classifier_in_chunks_is_the_same(make_cache: MakeCache) -> None:
    engine = Engine()

    rows = await make_cache(engine).classifier(LABELS, TEMPLATES)

    np.testing.assert_allclose(rows, expected(LABELS), atol=1e-6)
    assert engine.calls == [6, 6, 6, 2]


async def test_concurrent_callers_share_one_computation(make_cache: MakeCache, lookups: list[tuple[int, int]]) -> None:
    engine = Engine()
    cache = make_cache(engine)

    rows = await asyncio.gather(*(cache.classifier(LABELS, TEMPLATES) for _ in range(5)))
    await cache.classifier(LABELS, TEMPLATES)

    assert len(engine.texts) == 20
    assert all(np.array_equal(rows[0], other) for other in rows)
    assert lookups == [(0, 20), (20, 0)]


async def test_a_computation_continues_after_its_callers_are_cancelled(make_cache: MakeCache) -> None:
    engine = Engine()
    engine.unblocked.clear()
    cache = make_cache(engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.classifier(LABELS, TEMPLATES)

    engine.unblocked.set()
    np.testing.assert_allclose(await cache.classifier(LABELS, TEMPLATES), expected(LABELS), atol=1e-6)

    assert len(engine.texts) == 20


@pytest.mark.usefixtures("small_chunks")
async def test_a_large_classifier_leaves_room_for_others(make_cache: MakeCache) -> None:
    engine = Engine(limit=8)
    engine.unblocked.clear()
    cache = make_cache(engine)
    large = asyncio.create_task(cache.classifier(LABELS, TEMPLATES))
    await asyncio.sleep(0)
    other = asyncio.create_task(cache.embeddings(["label"]))
    await asyncio.sleep(0.01)

    assert engine.calls == [6, 1]
    engine.unblocked.set()
    np.testing.assert_allclose(await other, [row("label")])
    np.testing.assert_allclose(await large, expected(LABELS), atol=1e-6)


@pytest.mark.usefixtures("small_chunks")
async def test_a_started_classifier_waits_where_a_new_one_is_rejected(make_cache: MakeCache) -> None:
    engine = Engine(limit=6)
    cache = make_cache(engine)
    engine.unblocked.clear()
    started = asyncio.create_task(cache.classifier(LABELS, TEMPLATES))
    await engine.called.wait()

    with pytest.raises(ProblemError):
        await cache.classifier(["new"], TEMPLATES)
    engine.admission.waiting += 6  # of other requests, before the second chunk of the first
    engine.unblocked.set()
    await asyncio.sleep(0.02)
    assert not started.done()
    engine.admission.waiting -= 6

    np.testing.assert_allclose(await started, expected(LABELS), atol=1e-6)
    np.testing.assert_allclose(await cache.classifier(["new"], TEMPLATES), expected(["new"]), atol=1e-6)


async def test_a_failure_is_raised_to_all_callers_and_not_cached(make_cache: MakeCache) -> None:
    engine = Engine(limit=1)
    cache = make_cache(engine)
    with engine.admission.enter(1):
        failed = await asyncio.gather(*(cache.classifier(LABELS, TEMPLATES) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in failed] == [ProblemError] * 3
    np.testing.assert_allclose(await cache.classifier(LABELS, TEMPLATES), expected(LABELS), atol=1e-6)


async def test_the_number_of_pending_classifiers_is_limited(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "MAX_PENDING", 2)
    engine = Engine()
    engine.unblocked.clear()
    cache = make_cache(engine)
    pending = [asyncio.create_task(cache.classifier([name], TEMPLATES)) for name in ("a", "b")]
    await asyncio.sleep(0)

    with pytest.raises(ProblemError, match="2 other sets") as rejected:
        await cache.classifier(["c"], TEMPLATES)

    assert rejected.value.headers == {"Retry-After": "2"}
    engine.unblocked.set()
    assert len(await asyncio.gather(*pending)) == 2


def test_the_least_recently_used_entry_is_evicted() -> None:
    row = np.zeros(1000, np.float32)
    cache: LruCache[str] = LruCache(10_000)
    cache.put("a", row, 1)
    cache.put("b", row, 1)
    assert cache.get("a") is not None

    cache.put("c", row, 1)

    assert (cache.get("b"), len(cache)) == (None, 2)
    assert cache.bytes <= 10_000


def test_an_entry_larger_than_the_cache_is_not_kept() -> None:
    cache: LruCache[str] = LruCache(100)

    cache.put("a", np.zeros(1000, np.float32), 1)

    assert (len(cache), cache.bytes) == (0, 0)
