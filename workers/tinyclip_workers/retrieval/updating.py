"""Apply accepted updates to an index: encode their items, write the next generation, commit it."""

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
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import IndexItem, RejectedItem

from tinyclip_workers.data.image_input import BadImage, image_data, read_image
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.commits import commit, newest, remove_unused
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.items import BATCH
from tinyclip_workers.retrieval.merging import Changes, NewItem, next_generation
from tinyclip_workers.retrieval.pictures import kept_jpeg
from tinyclip_workers.retrieval.reader import DatabaseUnavailable
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.types import Matrix, Pixels

log = logging.getLogger(__name__)

BATCH_BYTES = 64 << 20
"""Size of update files from which a batch of updates is applied."""
MAX_IMAGE_BYTES = 64 << 20
"""The control plane limits what it accepts; this limits what a modified file can contain."""
MAX_DATABASE_ATTEMPTS = 3
"""Attempts to write one generation into the database."""


class UpdateSuperseded(RequestWithdrawn):
    """The index is at another build, or another process has changed it: this process has changed nothing."""


def apply_updates(
    store: ArtifactsStore, request: IndexRequest, load: Callable[[], Engine], events: EventWriter, still_wanted: Callable[[], Any]
) -> Generation:
    """Apply the request's updates that the index does not contain yet; return the newest generation.

    Large updates are applied in batches, one generation each, so that memory is bounded. Raises UpdateSuperseded, or what
    `still_wanted` raises.
    """
    assert request.updates is not None
    current = newest(store, request.name)
    if current is None or current.build != request.build:
        raise UpdateSuperseded(f"index {request.name} is no longer at build {request.build}")
    if current.store == "pgvector":
        current = _recover_from_tables(store, current)
    remove_unused(store, current)  # an attempt that died after its commit may not have done it
    waiting = deque(update for update in request.updates if update.number > current.applied)
    _acknowledge(store, request, current, events, last=not waiting)
    while waiting:
        pending = _PendingUpdates(current.embed_dim, load)
        while waiting and pending.size < BATCH_BYTES:
            number = waiting[0].number
            pending.add(number, _read_update(store, request.name, waiting.popleft()))
        changes = pending.encode(partial(_report_encoded, events))
        outcome = _Outcome(number, pending.rejected)
        if current.store == "pgvector":
            current = _update_tables(current, changes, request, outcome, still_wanted)
        else:
            written = next_generation(store, current, changes, request.kind, partial(_report_linked, events, current.count))
            still_wanted()
            current = written.model_copy(update=vars(outcome))
        if not commit(store, current):
            raise UpdateSuperseded(f"another process has committed generation {current.number} of index {request.name}")
        _acknowledge(store, request, current, events, last=not waiting)
    return current


@dataclass(frozen=True)
class _Outcome:
    """The fields of a generation that describe its updates."""

    applied: int
    rejected: list[RejectedItem]


def _recover_from_tables(store: ArtifactsStore, current: Generation) -> Generation:
    from tinyclip_workers.retrieval.postgres.updating import recover_generation  # an extra

    return recover_generation(store, current)


def _update_tables(
    current: Generation, changes: Changes, request: IndexRequest, outcome: _Outcome, still_wanted: Callable[[], Any]
) -> Generation:
    """Change the tables, which also commits the generation there. Raises UpdateSuperseded, DatabaseUnavailable."""
    from tinyclip_workers.retrieval.postgres.updating import (  # an extra
        ConcurrentUpdate,
        apply_changes,
        stored_generation,
    )

    for attempts_left in reversed(range(MAX_DATABASE_ATTEMPTS)):
        try:
            return apply_changes(current, changes, request.kind, **vars(outcome), still_wanted=still_wanted)
        except ConcurrentUpdate as error:
            raise UpdateSuperseded(str(error)) from error
        except DatabaseUnavailable as error:
            if not attempts_left:
                raise
            log.warning("retrying: %s", error)
            stored = stored_generation(current)  # the connection may have been lost after the commit
            if (stored.number, stored.applied) == (current.number + 1, outcome.applied):
                return stored
    raise AssertionError


def _acknowledge(store: ArtifactsStore, request: IndexRequest, current: Generation, events: EventWriter, *, last: bool) -> None:
    """Remove the files of applied updates and report them to the control plane."""
    applied = [update for update in request.updates or [] if update.number <= current.applied]
    for update in applied:
        store.remove(index_update(request.name, update.file))
    if applied:
        data = current.model_dump(mode="json", include={"applied", "count", "kind", "rejected"})
        events.send("index.updated", data={**data, **current.measurements(), "last": last})


def _report_encoded(events: EventWriter, done: int, total: int) -> None:
    events.send("index.progress", data={"done": done, "total": total, "phase": "encoding"})


def _report_linked(events: EventWriter, total: int, done: int) -> None:
    events.send("index.progress", data={"done": done, "total": total, "phase": "linking"})


def _read_update(store: ArtifactsStore, name: str, update: UpdateFile) -> IndexUpdate:
    path = index_update(name, update.file)
    try:
        return IndexUpdate.model_validate_json(store.read_bytes(path))
    except FileNotFoundError as error:
        raise ValueError(f"the file of update {update.number}, {store.uri(path)}, no longer exists") from error
    except ValidationError as error:
        raise ValueError(f"{store.uri(path)} is not a valid update: {error}") from error


class _PendingUpdates:
    """Updates in order; the newest entry of an id that can be embedded takes effect."""

    def __init__(self, embed_dim: int, load: Callable[[], Engine]) -> None:
        self._embed_dim, self._load = embed_dim, load
        self._engine: Engine | None = None
        self._entries: dict[str, list[tuple[int, IndexItem | None]]] = {}
        self.rejected: list[RejectedItem] = []
        self.size = 0
        """Approximate size in bytes."""

    def add(self, number: int, update: IndexUpdate) -> None:
        self.size += len(update.model_dump_json())
        for id in update.removed:
            self._entries.setdefault(id, []).append((number, None))
        for item in update.items:
            self._entries.setdefault(item.id, []).append((number, item))

    def encode(self, on_progress: Callable[[int, int], None]) -> dict[str, NewItem | None]:
        """Return the change of each id. An item that cannot be embedded is rejected, and the entry before it takes effect."""
        changes: dict[str, NewItem | None] = {}
        waiting = dict(self._entries)
        while waiting:
            last = {id: entries[-1] for id, entries in waiting.items()}
            changes |= {id: None for id, (_, item) in last.items() if item is None}
            items = [(number, item) for number, item in last.values() if item is not None]
            embedded, rejected = self._embed(items, on_progress)
            changes |= embedded
            waiting = {id: waiting[id][:-1] for id in rejected if len(waiting[id]) > 1}
        return changes

    def _embed(
        self, items: list[tuple[int, IndexItem]], on_progress: Callable[[int, int], None]
    ) -> tuple[dict[str, NewItem], list[str]]:
        embedded: dict[str, NewItem] = {}
        rejected: list[str] = []
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            for (number, item), vector_E in zip(batch, self._vectors([item for _, item in batch]), strict=True):
                if isinstance(vector_E, str):
                    self.rejected.append(RejectedItem(update=number, id=item.id, reason=vector_E))
                    rejected.append(item.id)
                else:
                    embedded[item.id] = NewItem(vector_E, item.metadata, self._picture(item))
            on_progress(min(start + BATCH, len(items)), len(items))
        return embedded, rejected

    def _vectors(self, items: list[IndexItem]) -> list[Matrix | str]:
        """Return the vector (E,) of each item, or the reason why it has none."""
        vectors: list[Matrix | str] = [""] * len(items)
        images: dict[int, Pixels] = {}
        texts: dict[int, str] = {}
        for place, item in enumerate(items):
            if item.vector is not None:
                vectors[place] = self._normalize(item.vector)
            elif item.text is not None:
                texts[place] = item.text
            else:
                try:
                    images[place] = read_image(item.image or "", MAX_IMAGE_BYTES, self.engine.image_size)
                except BadImage as error:
                    vectors[place] = f"the image {error}"
        if images:
            rows_NE = self.engine.encode_image(np.stack(list(images.values())))
            for place, row_E in zip(images, rows_NE, strict=True):
                vectors[place] = row_E
        if texts:
            for place, row_E in zip(texts, self.engine.encode_text(list(texts.values())), strict=True):
                vectors[place] = row_E
        return vectors

    def _picture(self, item: IndexItem) -> bytes | None:
        """Return the small JPEG that is kept of an item with an image: its bytes are nowhere else once it is applied."""
        return None if item.image is None else kept_jpeg(image_data(item.image, MAX_IMAGE_BYTES))

    def _normalize(self, vector: list[float]) -> Matrix | str:
        if len(vector) != self._embed_dim:
            return f"the vector has {len(vector)} numbers and the model's embeddings have {self._embed_dim}"
        exact_E = np.asarray(vector, np.float64)
        return np.asarray(exact_E / np.linalg.norm(exact_E), np.float32)

    @property
    def engine(self) -> Engine:
        """The engine, loaded on first use: vectors need none."""
        if self._engine is None:
            self._engine = self._load()
        return self._engine
