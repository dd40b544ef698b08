"""Embeddings of texts seen before: the labels of a classifier come again with every image."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from tinyclip_workers.serving.queries.problems import Refusal, refuse
from tinyclip_workers.types import Matrix

Encode = Callable[[list[str]], Awaitable[Matrix]]
Classes = tuple[tuple[str, ...], tuple[str, ...]]
"""Labels and templates."""
Key = TypeVar("Key", bound=Hashable)

PART = 2048
"""Texts of a label set that are asked for at once: a large set does not take all the room there is for unknown texts."""
PAUSE_S = 0.1
MOST_COMING = 32
"""Label sets that are being computed."""
ENTRY_BYTES = 500
"""What an entry costs beside its numbers and its key's characters."""


class Lru(Generic[Key]):
    """Arrays by key within a number of bytes; the longest unused is forgotten first."""

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
    """Text embeddings, computed once. For one event loop, not for threads."""

    def __init__(self, encode: Encode, max_bytes: int, watch: Callable[[int, int], None] = lambda hits, misses: None) -> None:
        """`watch` is told how many texts were known and how many were not."""
        self._encode, self._watch = encode, watch
        self._rows: Lru[str] = Lru(max_bytes // 2)
        self._classes: Lru[Classes] = Lru(max_bytes // 2)
        self._coming: dict[Classes, asyncio.Task[Matrix]] = {}

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E), L2-normalised; only what is new is computed, each text once."""
        known = {text: row for text in texts if (row := self._rows.get(text)) is not None}
        new = sorted(set(texts) - known.keys(), key=len)  # neighbours of one length share a batch: less padding
        self._watch(len(texts) - len(new), len(new))
        if new:
            for text, row in zip(new, await self._encode(new), strict=True):
                known[text] = row.copy()  # a view would keep its whole batch in memory
                self._rows.put(text, known[text], len(text))
        return np.stack([known[text] for text in texts])

    async def classes(self, labels: Sequence[str], templates: Sequence[str]) -> Matrix:
        """(labels, E): each label's texts, one a template, averaged and L2-normalised (CLIP's prompt ensemble).

        Whoever asks for what is being computed already waits for that. It is computed to its end even if all of them give up:
        a set that takes longer than a request may is there when they ask again.
        """
        key = (tuple(labels), tuple(templates))
        if (known := self._classes.get(key)) is not None:
            self._watch(len(labels) * len(templates), 0)
            return known
        if key not in self._coming:
            if len(self._coming) >= MOST_COMING:
                detail = f"{MOST_COMING} other sets of labels are being computed; try again in 2 s"
                raise refuse(429, "busy", "Too many requests", detail, retryable=True, headers={"Retry-After": "2"})
            self._coming[key] = asyncio.create_task(self._compute(key))
            self._coming[key].add_done_callback(partial(self._came, key))
        return await asyncio.shield(self._coming[key])

    async def _compute(self, key: Classes) -> Matrix:
        labels, templates = key
        step = max(1, PART // len(templates))
        means = [await self._means(labels[i : i + step], templates, patient=i > 0) for i in range(0, len(labels), step)]
        mean_LE = np.concatenate(means)
        matrix: Matrix = mean_LE / np.linalg.norm(mean_LE, axis=1, keepdims=True)
        self._classes.put(key, matrix, sum(map(len, labels)) + sum(map(len, templates)) + 100 * len(labels))
        return matrix

    async def _means(self, labels: Sequence[str], templates: Sequence[str], *, patient: bool) -> Matrix:
        """(labels, E), not normalised. Where too much waits already: raises Refusal, or waits itself if it is `patient`."""
        texts = [template.replace("{}", label) for label in labels for template in templates]
        while True:
            try:
                rows = await self.texts(texts)
                break
            except Refusal:
                if not patient:
                    raise
            await asyncio.sleep(PAUSE_S)
        mean_LE: Matrix = rows.reshape(len(labels), len(templates), -1).mean(axis=1)
        return mean_LE

    def _came(self, key: Classes, task: "asyncio.Task[Matrix]") -> None:
        del self._coming[key]
        if not task.cancelled():
            task.exception()  # told to those who wait; if there is nobody, there is nobody to tell
