"""The indexes that a replica searches: opened at their first query, and reopened when a new generation is committed."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from safetensors import SafetensorError
from tinyclip.artifacts.paths import index_request
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.errors import MissingExtra
from tinyclip.filters import Condition
from tinyclip.validation import shown_value

from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import (
    DatabaseUnavailable,
    FilesReader,
    GenerationRemoved,
    IndexReader,
    SearchResult,
    nearest_to_item,
    open_index,
)
from tinyclip_workers.serving.problems import ProblemError, field_error, invalid_input, problem_error
from tinyclip_workers.serving.replica.compatible import LEAST_SHARE, Bridge, CompatibleModels
from tinyclip_workers.serving.replica.store_calls import call_store, in_store_thread, open_limited_store, store_unavailable
from tinyclip_workers.types import Matrix

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""Interval of checking the store for a newer generation, while there are queries."""
REFRESH_WAIT_SECONDS = 2.0
"""How long the query that finds the check due waits for it, if a reader is open. Others do not wait."""
MAX_BYTES_HELD_TWICE = 1 << 30
"""Up to so many bytes of graphs that a new generation drops are kept in memory, and answer, until it is open. Larger ones are
released first and queries wait, so that a replica needs memory for one generation only."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass
class _OpenIndex:
    """The current reader of an index. `lock` is held while a generation is opened."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reader: IndexReader | None = None
    checked_at: float = -REFRESH_SECONDS

    def fresh_reader(self) -> IndexReader | None:
        """Return the reader, unless the store is due to be checked."""
        return self.reader if time.monotonic() - self.checked_at < REFRESH_SECONDS else None


class Indexes:
    """Open indexes by name. `get` is thread-safe, the async methods are for one event loop."""

    def __init__(self, artifacts: str) -> None:
        self._store = open_limited_store(artifacts)
        self._open: dict[str, _OpenIndex] = {}
        self._lock = threading.Lock()
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._compatible = CompatibleModels(self._store)

    def get(self, name: str, model: str) -> IndexReader:
        """Return a reader of the index's newest generation.

        Raises ProblemError: 404 if there is no such index, 409 if it is still being built or holds another model's embeddings.
        """
        _check_name(name)
        reader = self._current_reader(name)
        if reader.generation.model != model:
            raise _of_another_model(name, model, reader.generation.model, None)
        return reader

    async def open(self, name: str, model: str, *, compatible: bool = False) -> IndexReader:
        """Return a reader like `get`; after `REFRESH_WAIT_SECONDS` of waiting for a slow store, the one that is open already.

        `compatible`: also of an index of a compatible model. Raises ProblemError as `get`, and 503 if the store fails and no
        reader is open.
        """
        _check_name(name)
        known = self._open.get(name)
        if known is None or known.fresh_reader() is None:
            await self._refreshed(name)
        while (reader := self._open_reader(name)) is None:  # a large one was released before the next is opened
            await self._refreshed(name)
        await self._bridge(name, model, reader.generation.model, asked=compatible)
        return reader

    async def nearest(
        self, name: str, model: str, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = (),
        executor: Executor | None = None, *, compatible: bool = False,
    ) -> tuple[Generation, SearchResult]:
        """Search the newest generation in a thread of the executor; return it with its hits. `compatible`: as of `open`.

        Raises ProblemError as `open`, and 503 while a database cannot be reached.
        """
        in_thread = partial(asyncio.get_running_loop().run_in_executor, executor)

        async def search() -> tuple[Generation, SearchResult]:
            reader = await self.open(name, model, compatible=compatible)
            bridge = await self._bridge(name, model, reader.generation.model, asked=compatible)
            query = query_E if bridge is None else bridge(query_E)
            return reader.generation, await in_thread(reader.nearest, query, top_k, conditions)

        return await self._searched(name, search)

    async def nearest_to_item(
        self, name: str, model: str, id: str, top_k: int, conditions: Sequence[Condition] = (),
        executor: Executor | None = None, *, compatible: bool = False,
    ) -> tuple[Generation, SearchResult]:
        """Search as `nearest` with the stored vector of an item, which is not among its hits.

        Raises ProblemError as `nearest`, and 404 if there is no such item.
        """
        in_thread = partial(asyncio.get_running_loop().run_in_executor, executor)

        async def search() -> tuple[Generation, SearchResult]:
            reader = await self.open(name, model, compatible=compatible)
            found = await in_thread(nearest_to_item, reader, id, top_k, conditions)
            if found is None:
                reason = f"/item: index {name} has no item {shown_value(id)}; give the id of an item that a search has found"
                raise problem_error(404, "item_not_found", "There is no such item", reason)
            return reader.generation, found

        return await self._searched(name, search)

    async def _searched(
        self, name: str, search: Callable[[], Awaitable[tuple[Generation, SearchResult]]]
    ) -> tuple[Generation, SearchResult]:
        """Search, again if the generation was removed meanwhile. Raises ProblemError."""
        try:
            try:
                return await search()
            except GenerationRemoved:  # by a newer generation, since the last check
                self._open[name].checked_at = -REFRESH_SECONDS
                return await search()
        except DatabaseUnavailable as error:
            raise _unavailable(name, str(error)) from error
        except GenerationRemoved as error:
            raise _unavailable(name, f"{error}; try again in a moment; if this persists, PUT the index again") from error

    async def _bridge(self, name: str, model: str, index_model: str, *, asked: bool) -> Bridge | None:
        """Return the way from a model's embeddings to those of an index; None if the index is of this model.

        Raises ProblemError if the index is of another model, unless a compatible one is asked for and was measured to be good.
        """
        if model == index_model:
            return None
        bridge = None
        try:
            bridge = await call_store(lambda: self._compatible.bridge(model, index_model))
        except (OSError, ValueError, SafetensorError) as error:  # a damaged document or file
            log.warning("models %s and %s cannot be compared: %s", model, index_model, error)
        except ProblemError:
            if asked:
                raise
        if bridge is None or not asked or bridge.share < LEAST_SHARE:
            raise _of_another_model(name, model, index_model, bridge)
        return bridge

    def _open_reader(self, name: str) -> IndexReader | None:
        known = self._open.get(name)
        return known.reader if known is not None else None

    async def _refreshed(self, name: str) -> None:
        """Wait until the newest generation is open, or not for long if another one is. Raises ProblemError.

        No variable holds a reader meanwhile: it would keep a generation in memory that `_open_generation` wants to release.
        """
        is_first = name not in self._refreshing
        if is_first:
            refresh = asyncio.create_task(in_store_thread(lambda: self._check_store(name)))
            refresh.add_done_callback(lambda done: (self._refreshing.pop(name), done.cancelled() or done.exception()))
            self._refreshing[name] = refresh
        refresh = self._refreshing[name]
        if self._open_reader(name) is not None:
            if is_first:
                await asyncio.wait([refresh], timeout=REFRESH_WAIT_SECONDS)
            if not refresh.done() and self._open_reader(name) is not None:
                return  # it continues; the previous generation answers meanwhile
        try:
            await asyncio.shield(refresh)  # the request that started it may be cancelled before it is done
        except (StoreUnavailable, TimeoutError) as error:
            raise store_unavailable() from error

    def _check_store(self, name: str) -> None:
        self._current_reader(name)

    def _current_reader(self, name: str) -> IndexReader:
        with self._lock:
            known = self._open.setdefault(name, _OpenIndex())
        reader = known.fresh_reader()
        if reader is not None:
            return reader
        reader = known.reader
        if not known.lock.acquire(blocking=reader is None):
            assert reader is not None
            return reader  # another thread refreshes already; the previous generation answers meanwhile
        del reader  # a reference would keep a generation in memory that `_open_generation` wants to release
        try:
            return known.fresh_reader() or self._refresh(name, known)
        except ProblemError:
            with self._lock:
                self._open.pop(name, None)
            raise
        finally:
            known.lock.release()

    def _refresh(self, name: str, known: _OpenIndex) -> IndexReader:
        """Open the newest generation if it is not open yet; keep the open one if the store fails. The caller holds the lock."""
        try:
            generation = self._newest(name)
            if known.reader is None or known.reader.generation != generation:
                try:
                    known.reader = self._open_generation(known, generation)
                except FileNotFoundError:  # replaced or deleted after the check
                    known.reader = self._open_generation(known, self._newest(name))
        except StoreUnavailable as error:
            if known.reader is None:
                raise
            log.warning("index %s stays at generation %d: %s", name, known.reader.generation.number, error)
        known.checked_at = time.monotonic()
        return known.reader

    def _open_generation(self, known: _OpenIndex, generation: Generation) -> IndexReader:
        """Open a generation, reusing the segments that are open already. Raises FileNotFoundError, ProblemError."""
        if generation.store == "pgvector":
            return _open_postgres(generation)
        wanted = {info.id for info in generation.segments}
        segments = {segment.id: segment for segment in known.reader.segments} if isinstance(known.reader, FilesReader) else {}
        dropped_bytes = sum(segment.memory for id, segment in segments.items() if id not in wanted)
        segments = {id: segment for id, segment in segments.items() if id in wanted}
        if dropped_bytes > MAX_BYTES_HELD_TWICE:
            known.reader = None
        return open_index(self._store, generation, segments)

    def _newest(self, name: str) -> Generation:
        """Raises ProblemError if there is none, because the index is still being built or was never created."""
        generation = newest(self._store, name)
        if generation is not None:
            return generation
        if self._store.exists(index_request(name)):
            raise problem_error(
                409,
                "index_not_ready",
                "The index is not ready",
                f"/index: {name} has no finished build yet; GET /v1/indexes/{name} of the control plane shows its state",
                retryable=True,
            )
        raise problem_error(
            404,
            "index_not_found",
            "There is no such index",
            f"/index: there is no index {name}; create it with PUT /v1/indexes/{name} of the control plane",
        )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid_input(field_error("/index", name, "is not the name of an index (a-z, 0-9, '.', '_' and '-')"))


def _of_another_model(name: str, model: str, index_model: str, bridge: Bridge | None) -> ProblemError:
    remedy = f"query a deployment of {index_model}, or build the index again with model {model}"
    if bridge is not None and bridge.share >= LEAST_SHARE:
        remedy = f'{bridge.measured}; give "compatible": true to search it nevertheless, or {remedy}'
    elif bridge is not None:
        remedy = f"{bridge.measured}, and at least {100 * LEAST_SHARE:.0f}% is needed to search it nevertheless; {remedy}"
    held = f"/index: {name} holds embeddings of {index_model} and this deployment serves {model}"
    return problem_error(409, "index_of_another_model", "The index belongs to another model", f"{held}; {remedy}")


def _open_postgres(generation: Generation) -> IndexReader:
    """Raises ProblemError if the replica cannot query a database."""
    try:
        from tinyclip_workers.retrieval.postgres.reader import PostgresReader  # needs an extra

        return PostgresReader(generation)
    except (MissingExtra, ValueError) as error:
        raise _unavailable(generation.name, str(error)) from error


def _unavailable(name: str, reason: str) -> ProblemError:
    return problem_error(
        503, "index_unavailable", "The index cannot be searched now", f"/index: {name}: {reason}", retryable=True,
        headers={"Retry-After": "5"},
    )  # fmt: skip
