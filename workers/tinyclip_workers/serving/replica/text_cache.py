"""Cached text embeddings: the labels of a classifier come with every image."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from tinyclip_workers.serving.problems import ProblemError, problem_error
from tinyclip_workers.types import Matrix

Encode = Callable[[list[str]], Awaitable[Matrix]]
ClassifierKey = tuple[tuple[str, ...], tuple[str, ...]]
"""Labels and templates."""
Key = TypeVar("Key", bound=Hashable)

CHUNK_TEXTS = 2048
"""Texts of a classifier that are encoded at once: a large one does not use up the admission limit for uncached texts."""
BUSY_RETRY_SECONDS = 0.1
MAX_PENDING = 32
"""Classifiers that are computed at the same time."""
ENTRY_BYTES = 500
"""Memory of a cache entry beside its numbers and the characters of its key."""


class LruCache(Generic[Key]):
    """Arrays by key within a number of bytes; the least recently used one is evicted first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, tuple[Matrix, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Key) -> Matrix | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Matrix, key_characters: int) -> None:
        if key in self._entries:
            return
        cost = value.nbytes + key_characters + ENTRY_BYTES
        self._entries[key] = (value, cost)
        self.bytes += cost
        while self.bytes > self._max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._entries)


class TextCache:
    """Embeddings of texts and of whole classifiers, each computed once. For one event loop, not for threads."""

    def __init__(
        self, encode: Encode, max_bytes: int, on_lookup: Callable[[int, int], None] = lambda hits, misses: None
    ) -> None:
        """`on_lookup` receives the number of cached and of uncached texts of each call."""
        self._encode, self._on_lookup = encode, on_lookup
        self._rows: LruCache[str] = LruCache(max_bytes // 2)
        self._classifiers: LruCache[ClassifierKey] = LruCache(max_bytes // 2)
        self._pending: dict[ClassifierKey, asyncio.Task[Matrix]] = {}

    async def embeddings(self, texts: Sequence[str]) -> Matrix:
        """Return (texts, E), L2-normalised; only uncached texts are computed, each once."""
        known = {text: row for text in texts if (row := self._rows.get(text)) is not None}
        new = sorted(set(texts) - known.keys(), key=len)  # texts of similar length share a batch: less padding
        self._on_lookup(len(texts) - len(new), len(new))
        if new:
            for text, row in zip(new, await self._encode(new), strict=True):
                known[text] = row.copy()  # a view would keep its whole batch in memory
                self._rows.put(text, known[text], len(text))
        return np.stack([known[text] for text in texts])

    async def classifier(self, labels: Sequence[str], templates: Sequence[str]) -> Matrix:
        """Return (labels, E): the L2-normalised mean of each label's texts, one per template (CLIP's prompt ensemble).

        Callers with the same labels and templates share one computation. It continues even if all of them are cancelled: a
        classifier that takes longer than a request may is cached when the client retries.
        """
        key = (tuple(labels), tuple(templates))
        if (known := self._classifiers.get(key)) is not None:
            self._on_lookup(len(labels) * len(templates), 0)
            return known
        if key not in self._pending:
            if len(self._pending) >= MAX_PENDING:
                detail = f"{MAX_PENDING} other sets of labels are being computed; try again in 2 s"
                raise problem_error(429, "busy", "Too many requests", detail, retryable=True, headers={"Retry-After": "2"})
            self._pending[key] = asyncio.create_task(self._compute(key))
            self._pending[key].add_done_callback(partial(self._on_done, key))
        return await asyncio.shield(self._pending[key])

    async def _compute(self, key: ClassifierKey) -> Matrix:
        labels, templates = key
        step = max(1, CHUNK_TEXTS // len(templates))
        means = [await self._means(labels[i : i + step], templates, wait_if_busy=i > 0) for i in range(0, len(labels), step)]
        mean_LE = np.concatenate(means)
        matrix: Matrix = mean_LE / np.linalg.norm(mean_LE, axis=1, keepdims=True)
        self._classifiers.put(key, matrix, sum(map(len, labels)) + sum(map(len, templates)) + 100 * len(labels))
        return matrix

    async def _means(self, labels: Sequence[str], templates: Sequence[str], *, wait_if_busy: bool) -> Matrix:
        """Return (labels, E), not normalised. Where too many texts wait already, wait too or raise ProblemError."""
        texts = [template.replace("{}", label) for label in labels for template in templates]
        while True:
            try:
                rows = await self.embeddings(texts)
                break
            except ProblemError:
                if not wait_if_busy:
                    raise
            await asyncio.sleep(BUSY_RETRY_SECONDS)
        mean_LE: Matrix = rows.reshape(len(labels), len(templates), -1).mean(axis=1)
        return mean_LE

    def _on_done(self, key: ClassifierKey, task: "asyncio.Task[Matrix]") -> None:
        del self._pending[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it when no caller is left
