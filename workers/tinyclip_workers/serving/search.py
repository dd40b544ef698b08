"""The indexes that a deployment searches: opened when first asked for, exchanged when a new build is committed."""

import re
import shutil
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from tinyclip_workers.serving.index_files import (
    ITEMS,
    VECTORS,
    BuiltIndex,
    IndexReader,
    build_folder,
    current_path,
    request_path,
)
from tinyclip_workers.serving.problems import Refusal, field_error, invalid, refuse
from tinyclip_workers.store import Store

LOOK_EVERY_S = 1.0
"""How old the knowledge of which build is current may be."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass
class _Open:
    reader: IndexReader
    looked_at: float


class Indexes:
    """Open indexes by name. Called from threads."""

    def __init__(self, artifacts: str) -> None:
        self._store = Store(artifacts)
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def get(self, name: str, model: str) -> IndexReader:
        """The current build of an index.

        Raises Refusal: 404 there is none of this name, 409 it is still being built or holds another model's embeddings.
        """
        if not _NAME.fullmatch(name):
            raise invalid(field_error("/index", name, "is not the name of an index (a-z, 0-9, '.', '_' and '-')"))
        with self._lock:
            reader = self._current(name)
        if reader.built.model != model:
            raise refuse(
                409,
                "index_of_another_model",
                "The index belongs to another model",
                f"/index: {name} holds embeddings of {reader.built.model} and this deployment serves {model}; "
                f"ask a deployment of {reader.built.model}, or build the index again with model {model}",
            )
        return reader

    def _current(self, name: str) -> IndexReader:
        known = self._open.get(name)
        if known and time.monotonic() - known.looked_at < LOOK_EVERY_S:
            return known.reader
        try:
            built = self._look(name)
            if known and known.reader.built == built:
                known.looked_at = time.monotonic()
                return known.reader
            self._open[name] = self._opened(built)
        except FileNotFoundError:  # replaced and removed between the look and the opening, or deleted
            self._open.pop(name, None)
            self._open[name] = self._opened(self._look(name))
        except Refusal:
            self._open.pop(name, None)
            raise
        return self._open[name].reader

    def _look(self, name: str) -> BuiltIndex:
        try:
            return BuiltIndex.model_validate_json(self._store.read_bytes(current_path(name)))
        except FileNotFoundError as error:
            raise self._missing(name) from error

    def _missing(self, name: str) -> Refusal:
        """Whether an index is on its way or was never asked for."""
        if self._store.exists(request_path(name)):
            return refuse(
                409,
                "index_not_ready",
                "The index is not ready",
                f"/index: {name} has no finished build yet; GET /v1/indexes/{name} of the control plane shows its state",
                retryable=True,
            )
        return refuse(
            404,
            "index_not_found",
            "There is no such index",
            f"/index: there is no index {name}; create it with PUT /v1/indexes/{name} of the control plane",
        )

    def _opened(self, built: BuiltIndex) -> _Open:
        folder = build_folder(built.name, built.build)
        local = self._store.local_path(folder)
        if local is not None:
            return _Open(IndexReader(local, built), time.monotonic())
        copy = Path(tempfile.mkdtemp(prefix="tinyclip-index-"))
        try:
            for file in (VECTORS, ITEMS):
                self._store.fetch(f"{folder}/{file}", copy / file)
            reader = IndexReader(copy, built)
        except OSError:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        weakref.finalize(reader, shutil.rmtree, copy, ignore_errors=True)
        return _Open(reader, time.monotonic())
