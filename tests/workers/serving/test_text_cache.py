"""Embeddings of texts that come again: computed once, for all who ask, without standing in others' way."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import text_cache
from tinyclip_workers.serving.replica.batching import Admission
from tinyclip_workers.serving.replica.text_cache import TextCache
from tinyclip_workers.types import Matrix

LABELS, TEMPLATES = [f"label {i}" for i in range(10)], ["a {}.", "the {}!"]


class Engine:
    """Embeds a text by its letters, through a door that can be shut, as many at once as there is room for."""

    def __init__(self, most: int = 1000) -> None:
        self.texts: list[str] = []
        self.calls: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.admission = Admission("texts", most)

    async def encode(self, texts: list[str]) -> Matrix:
        with self.admission.enter(len(texts)):
            self.texts += texts
            self.calls.append(len(texts))
            await self.open.wait()
            await asyncio.sleep(0)
            return np.array([row(text) for text in texts])


def row(text: str) -> Matrix:
    counts = np.array([text.count(letter) + 1 for letter in "abel0123456789!"], np.float32)
    return np.asarray(counts / np.linalg.norm(counts), np.float32)


def expected(labels: list[str]) -> Matrix:
    means = np.array([(row(f"a {label}.") + row(f"the {label}!")) / 2 for label in labels])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "CHUNK_TEXTS", 6)
    monkeypatch.setattr(text_cache, "BUSY_RETRY_SECONDS", 0.001)


@pytest.fixture
def told() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def cache_of(told: list[tuple[int, int]]) -> Callable[[Engine], TextCache]:
    return lambda engine: TextCache(engine.encode, 10**6, lambda hits, misses: told.append((hits, misses)))


Make = Callable[[Engine], TextCache]


@pytest.mark.usefixtures("small_parts")
async def test_a_set_in_parts_is_the_same_set(cache_of: Make) -> None:
    engine = Engine()

    rows = await cache_of(engine).classifier(LABELS, TEMPLATES)

    np.testing.assert_allclose(rows, expected(LABELS), atol=1e-6)
    assert engine.calls == [6, 6, 6, 2]


async def test_who_asks_meanwhile_waits_for_the_same(cache_of: Make, told: list[tuple[int, int]]) -> None:
    engine = Engine()
    cache = cache_of(engine)

    rows = await asyncio.gather(*(cache.classifier(LABELS, TEMPLATES) for _ in range(5)))
    await cache.classifier(LABELS, TEMPLATES)

    assert len(engine.texts) == 20
    assert all(np.array_equal(rows[0], other) for other in rows)
    assert told == [(0, 20), (20, 0)]


async def test_a_set_is_computed_to_its_end_though_nobody_waits(cache_of: Make) -> None:
    engine = Engine()
    engine.open.clear()
    cache = cache_of(engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.classifier(LABELS, TEMPLATES)

    engine.open.set()
    np.testing.assert_allclose(await cache.classifier(LABELS, TEMPLATES), expected(LABELS), atol=1e-6)

    assert len(engine.texts) == 20


@pytest.mark.usefixtures("small_parts")
async def test_a_large_set_leaves_room_for_others(cache_of: Make) -> None:
    engine = Engine(most=8)
    engine.open.clear()
    cache = cache_of(engine)
    large = asyncio.create_task(cache.classifier(LABELS, TEMPLATES))
    await asyncio.sleep(0)
    other = asyncio.create_task(cache.embeddings(["label"]))
    await asyncio.sleep(0.01)

    assert engine.calls == [6, 1]
    engine.open.set()
    np.testing.assert_allclose(await other, [row("label")])
    np.testing.assert_allclose(await large, expected(LABELS), atol=1e-6)


@pytest.mark.usefixtures("small_parts")
async def test_a_set_that_has_begun_waits_where_another_is_refused(cache_of: Make) -> None:
    engine = Engine(most=6)
    cache = cache_of(engine)
    engine.open.clear()
    begun = asyncio.create_task(cache.classifier(LABELS, TEMPLATES))
    await asyncio.sleep(0.01)

    with pytest.raises(ProblemError):
        await cache.classifier(["new"], TEMPLATES)
    engine.admission.waiting += 6  # others, who come before the second part of the first
    engine.open.set()
    await asyncio.sleep(0.02)
    assert not begun.done()
    engine.admission.waiting -= 6

    np.testing.assert_allclose(await begun, expected(LABELS), atol=1e-6)
    np.testing.assert_allclose(await cache.classifier(["new"], TEMPLATES), expected(["new"]), atol=1e-6)


async def test_what_failed_is_told_to_all_and_tried_again(cache_of: Make) -> None:
    engine = Engine(most=1)
    cache = cache_of(engine)
    with engine.admission.enter(1):
        refused = await asyncio.gather(*(cache.classifier(LABELS, TEMPLATES) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in refused] == [ProblemError] * 3
    np.testing.assert_allclose(await cache.classifier(LABELS, TEMPLATES), expected(LABELS), atol=1e-6)


async def test_so_many_sets_at_a_time_and_no_more(cache_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "MAX_PENDING", 2)
    engine = Engine()
    engine.open.clear()
    cache = cache_of(engine)
    coming = [asyncio.create_task(cache.classifier([name], TEMPLATES)) for name in ("a", "b")]
    await asyncio.sleep(0.01)

    with pytest.raises(ProblemError, match="2 other sets") as refused:
        await cache.classifier(["c"], TEMPLATES)

    assert refused.value.headers == {"Retry-After": "2"}
    engine.open.set()
    assert len(await asyncio.gather(*coming)) == 2
