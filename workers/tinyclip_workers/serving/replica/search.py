"""The indexes that a deployment searches: opened when first asked for, exchanged when a new generation is committed."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyclip.errors import MissingExtra
from tinyclip.filters import Condition

from tinyclip_workers.retrieval.files import Generation, newest, request_path
from tinyclip_workers.retrieval.opening import open_index
from tinyclip_workers.retrieval.reader import DatabaseAway, Found, IndexReader, Reader, Replaced
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.serving.queries.problems import Refusal, field_error, invalid, refuse
from tinyclip_workers.types import Matrix

LOOK_EVERY_S = 1.0
"""How old the knowledge of which generation is the newest may be."""
ROOM_FOR_TWO = 1 << 30
"""Bytes of graphs that are held twice while a new generation is opened and the old one answers; of a larger one the old one goes
first and queries wait, so that a replica needs memory for one."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass
class _Open:
    """An index of one name. `lock` is held while a generation is opened."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reader: Reader | None = None
    looked_at: float = -LOOK_EVERY_S

    def fresh(self) -> Reader | None:
        """The reader, if it was the newest a moment ago."""
        return self.reader if time.monotonic() - self.looked_at < LOOK_EVERY_S else None


class Indexes:
    """Open indexes by name. Called from threads."""

    def __init__(self, artifacts: str) -> None:
        self._store = Store(artifacts)
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def get(self, name: str, model: str) -> Reader:
        """The newest generation of an index.

        Raises Refusal: 404 there is none of this name, 409 it is still being built or holds another model's embeddings.
        """
        if not _NAME.fullmatch(name):
            raise invalid(field_error("/index", name, "is not the name of an index (a-z, 0-9, '.', '_' and '-')"))
        reader = self._current(name)
        if reader.generation.model != model:
            raise refuse(
                409,
                "index_of_another_model",
                "The index belongs to another model",
                f"/index: {name} holds embeddings of {reader.generation.model} and this deployment serves {model}; "
                f"ask a deployment of {reader.generation.model}, or build the index again with model {model}",
            )
        return reader

    def nearest(
        self, name: str, model: str, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()
    ) -> tuple[Generation, Found]:
        """A search of the newest generation, and which that was. Raises Refusal, also 503 while a database is away."""
        try:
            reader = self.get(name, model)
            try:
                return reader.generation, reader.nearest(query_E, top_k, conditions)
            except Replaced:  # since somebody looked last
                self._open[name].looked_at = -LOOK_EVERY_S
                reader = self.get(name, model)
                return reader.generation, reader.nearest(query_E, top_k, conditions)
        except DatabaseAway as error:
            raise _unavailable(name, str(error)) from error
        except Replaced as error:
            way_out = "look again in a moment; if it stays so, PUT the index again"
            raise _unavailable(name, f"{error}; {way_out}") from error

    def _current(self, name: str) -> Reader:
        with self._lock:
            known = self._open.setdefault(name, _Open())
        reader = known.fresh()
        if reader is not None:
            return reader
        reader = known.reader
        if not known.lock.acquire(blocking=reader is None):
            assert reader is not None
            return reader  # somebody looks already; what was current until now answers meanwhile
        del reader  # or an old generation that has to go first would stay
        try:
            return known.fresh() or self._looked(name, known)
        except Refusal:
            with self._lock:
                self._open.pop(name, None)
            raise
        finally:
            known.lock.release()

    def _looked(self, name: str, known: _Open) -> Reader:
        """With the lock held."""
        generation = self._newest(name)
        if known.reader is None or known.reader.generation != generation:
            try:
                known.reader = self._exchanged(known, generation)
            except FileNotFoundError:  # replaced between the look and the opening, or deleted
                known.reader = self._exchanged(known, self._newest(name))
        known.looked_at = time.monotonic()
        return known.reader

    def _exchanged(self, known: _Open, generation: Generation) -> Reader:
        """A reader of the generation, with the segments that are open already. Raises FileNotFoundError, Refusal."""
        if generation.store == "pgvector":
            return _in_database(generation)
        wanted = {info.id for info in generation.segments}
        segments = {segment.id: segment for segment in known.reader.segments} if isinstance(known.reader, IndexReader) else {}
        going = sum(segment.memory for id, segment in segments.items() if id not in wanted)
        segments = {id: segment for id, segment in segments.items() if id in wanted}
        if going > ROOM_FOR_TWO:
            known.reader = None
        return open_index(self._store, generation, segments)

    def _newest(self, name: str) -> Generation:
        """Raises Refusal where there is none: whether the index is on its way or was never asked for."""
        generation = newest(self._store, name)
        if generation is not None:
            return generation
        if self._store.exists(request_path(name)):
            raise refuse(
                409,
                "index_not_ready",
                "The index is not ready",
                f"/index: {name} has no finished build yet; GET /v1/indexes/{name} of the control plane shows its state",
                retryable=True,
            )
        raise refuse(
            404,
            "index_not_found",
            "There is no such index",
            f"/index: there is no index {name}; create it with PUT /v1/indexes/{name} of the control plane",
        )


def _in_database(generation: Generation) -> Reader:
    """Raises Refusal where the replica cannot ask a database."""
    try:
        from tinyclip_workers.retrieval.postgres.reader import PostgresReader  # an extra

        return PostgresReader(generation)
    except (MissingExtra, ValueError) as error:
        raise _unavailable(generation.name, str(error)) from error


def _unavailable(name: str, why: str) -> Refusal:
    return refuse(
        503, "index_unavailable", "The index cannot be asked now", f"/index: {name}: {why}", retryable=True,
        headers={"Retry-After": "5"},
    )  # fmt: skip
