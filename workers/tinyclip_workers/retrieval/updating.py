"""Applies accepted updates to an index: encode what they bring, write the next generation, commit it."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError
from tinyclip.artifacts.documents import IndexRequest, IndexUpdate, UpdateFile
from tinyclip.artifacts.paths import index_update
from tinyclip.schemas import IndexItem, RejectedItem

from tinyclip_workers.data.image_input import BadImage, read_image
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.files import Generation, commit, newest
from tinyclip_workers.retrieval.items import BATCH
from tinyclip_workers.retrieval.leftovers import remove_all_others
from tinyclip_workers.retrieval.merging import Changes, NewItem, next_generation
from tinyclip_workers.retrieval.reader import DatabaseAway
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix, Pixels

log = logging.getLogger(__name__)

ROUND_BYTES = 64 << 20
"""Of update files from which a round has enough."""
MAX_IMAGE_BYTES = 64 << 20
"""The control plane bounds what it accepts; this bounds what a changed file could hold."""


MOST_LOSSES = 3
"""Of the database while one change is written into it."""


class Overtaken(RequestWithdrawn):
    """The index is at another build, or another process has changed it meanwhile: nothing was changed by this one."""


def apply_updates(
    store: Store, request: IndexRequest, load: Callable[[], Engine], events: EventWriter, still_wanted: Callable[[], Any]
) -> Generation:
    """The index with all of the request's updates in it. What it has already is not applied again.

    Many are applied in rounds, each a generation of its own, so that memory is bounded. Raises Overtaken, or what
    `still_wanted` raises.
    """
    assert request.updates is not None
    current = newest(store, request.name)
    if current is None or current.build != request.build:
        raise Overtaken(f"index {request.name} is no longer what build {request.build} made")
    if current.store == "pgvector":
        current = _caught_up(store, current)
    remove_all_others(store, current)  # an attempt that died after its commit may not have come to it
    waiting = deque(update for update in request.updates if update.number > current.applied)
    _tell(store, request, current, events, last=not waiting)
    while waiting:
        changes = _Changes(current.embed_dim, load)
        while waiting and changes.size < ROUND_BYTES:
            number = waiting[0].number
            changes.note(number, _read(store, request.name, waiting.popleft()))
        items = changes.encoded(partial(_tell_encoded, events))
        outcome = _Outcome(number, changes.rejected)
        if current.store == "pgvector":
            current = _changed_tables(current, items, request, outcome, still_wanted)
        else:
            linked = partial(_tell_linked, events, current.count)
            written = next_generation(store, current, items, request.kind, linked)
            still_wanted()
            current = written.model_copy(update=vars(outcome))
        if not commit(store, current):
            raise Overtaken(f"generation {current.number} of index {request.name} was made by somebody else")
        _tell(store, request, current, events, last=not waiting)
    return current


@dataclass(frozen=True)
class _Outcome:
    """What a generation says of the updates in it."""

    applied: int
    rejected: list[RejectedItem]


def _caught_up(store: Store, current: Generation) -> Generation:
    from tinyclip_workers.retrieval.postgres.changing import caught_up  # an extra

    return caught_up(store, current)


def _changed_tables(
    current: Generation, items: Changes, request: IndexRequest, outcome: _Outcome, still_wanted: Callable[[], Any]
) -> Generation:
    """In the tables this is the commit already. Raises Overtaken, DatabaseAway."""
    from tinyclip_workers.retrieval.postgres.changing import Moved, changed, held  # an extra

    for left in reversed(range(MOST_LOSSES)):
        try:
            return changed(current, items, request.kind, **vars(outcome), still_wanted=still_wanted)
        except Moved as moved:
            raise Overtaken(str(moved)) from moved
        except DatabaseAway as away:
            if not left:
                raise
            log.warning("asking again: %s", away)
            now = held(current)  # the connection may have been lost on the way back
            if (now.number, now.applied) == (current.number + 1, outcome.applied):
                return now
    raise AssertionError


def _tell(store: Store, request: IndexRequest, current: Generation, events: EventWriter, *, last: bool) -> None:
    """What was applied is over: its files go, and the control plane hears of it."""
    applied = [update for update in request.updates or [] if update.number <= current.applied]
    for update in applied:
        store.remove(index_update(request.name, update.file))
    if applied:
        data = current.model_dump(mode="json", include={"applied", "count", "kind", "rejected"})
        events.send("index.updated", data={**data, "recall": current.recall, "last": last})


def _tell_encoded(events: EventWriter, done: int, total: int) -> None:
    events.send("index.progress", data={"done": done, "total": total, "phase": "encoding"})


def _tell_linked(events: EventWriter, total: int, done: int) -> None:
    events.send("index.progress", data={"done": done, "total": total, "phase": "linking"})


def _read(store: Store, name: str, update: UpdateFile) -> IndexUpdate:
    path = index_update(name, update.file)
    try:
        return IndexUpdate.model_validate_json(store.read_bytes(path))
    except FileNotFoundError as error:
        raise ValueError(f"update {update.number} is not at {store.uri(path)} any more") from error
    except ValidationError as error:
        raise ValueError(f"{store.uri(path)} is no update: {error}") from error


class _Changes:
    """Updates in order, the last word about each id."""

    def __init__(self, embed_dim: int, load: Callable[[], Engine]) -> None:
        self._embed_dim, self._load = embed_dim, load
        self._engine: Engine | None = None
        self._words: dict[str, list[tuple[int, IndexItem | None]]] = {}
        self.rejected: list[RejectedItem] = []
        self.size = 0
        """Bytes, about."""

    def note(self, number: int, update: IndexUpdate) -> None:
        self.size += len(update.model_dump_json())
        for id in update.removed:
            self._words.setdefault(id, []).append((number, None))
        for item in update.items:
            self._words.setdefault(item.id, []).append((number, item))

    def encoded(self, on_progress: Callable[[int, int], None]) -> dict[str, NewItem | None]:
        """What each id is from now on. An item that cannot be embedded changes nothing: the word before it counts."""
        changes: dict[str, NewItem | None] = {}
        waiting = dict(self._words)
        while waiting:
            last = {id: words[-1] for id, words in waiting.items()}
            changes |= {id: None for id, (_, item) in last.items() if item is None}
            good, bad = self._embedded([(number, item) for number, item in last.values() if item is not None], on_progress)
            changes |= good
            waiting = {id: waiting[id][:-1] for id in bad if len(waiting[id]) > 1}
        return changes

    def _embedded(
        self, given: list[tuple[int, IndexItem]], on_progress: Callable[[int, int], None]
    ) -> tuple[dict[str, NewItem], list[str]]:
        good: dict[str, NewItem] = {}
        bad: list[str] = []
        for start in range(0, len(given), BATCH):
            batch = given[start : start + BATCH]
            for (number, item), vector_E in zip(batch, self._vectors(batch), strict=True):
                if isinstance(vector_E, str):
                    self.rejected.append(RejectedItem(update=number, id=item.id, reason=vector_E))
                    bad.append(item.id)
                else:
                    good[item.id] = NewItem(vector_E, item.metadata)
            on_progress(min(start + BATCH, len(given)), len(given))
        return good, bad

    def _vectors(self, given: list[tuple[int, IndexItem]]) -> list[Matrix | str]:
        """(E,) of each item, or why it has none."""
        vectors: list[Matrix | str] = [""] * len(given)
        pictures: dict[int, Pixels] = {}
        texts: dict[int, str] = {}
        for place, (_, item) in enumerate(given):
            if item.vector is not None:
                vectors[place] = self._given_vector(item.vector)
            elif item.text is not None:
                texts[place] = item.text
            else:
                try:
                    pictures[place] = read_image(item.image or "", MAX_IMAGE_BYTES, self.engine.image_size)
                except BadImage as error:
                    vectors[place] = f"the image {error}"
        if pictures:
            rows_NE = self.engine.encode_image(np.stack(list(pictures.values())))
            for place, row_E in zip(pictures, rows_NE, strict=True):
                vectors[place] = row_E
        if texts:
            for place, row_E in zip(texts, self.engine.encode_text(list(texts.values())), strict=True):
                vectors[place] = row_E
        return vectors

    def _given_vector(self, vector: list[float]) -> Matrix | str:
        if len(vector) != self._embed_dim:
            return f"the vector has {len(vector)} numbers and the model's embeddings have {self._embed_dim}"
        exact_E = np.asarray(vector, np.float64)
        return np.asarray(exact_E / np.linalg.norm(exact_E), np.float32)

    @property
    def engine(self) -> Engine:
        """Loaded when something has to be encoded: vectors need none."""
        if self._engine is None:
            self._engine = self._load()
        return self._engine
