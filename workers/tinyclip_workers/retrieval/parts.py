"""What a build has encoded so far, a file a thousand items: a build that was killed goes on behind the last of them.

Parts are numbered from 1 without gaps. Each holds its items and the position that the shards were at after them.
Shapes: N items, E embedding size.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_build_parts
from tinyclip.schemas import JSON

from tinyclip_workers.data.shards import Skipped
from tinyclip_workers.retrieval.items import Position
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

ROWS = 1024
"""Items from which a part is written: some ten seconds of work on one core."""


class TakenOver(RequestWithdrawn):
    """Another process writes the parts of this build; one of them is too many."""


@dataclass
class Reached:
    """Where a build is."""

    position: Position = field(default_factory=Position)
    items: int = 0
    seen_bytes: int = 0
    skipped: Skipped = field(default_factory=Skipped)


class Parts:
    """The parts of one build."""

    def __init__(self, store: Store, request: IndexRequest, urls: Sequence[str]) -> None:
        """Those of an earlier attempt count if it had the same shards, unchanged since, and asked the same of them."""
        self._store, self._folder = store, index_build_parts(request.name, request.build)
        plan = json.dumps(_plan(request, urls)).encode()
        path = f"{self._folder}/plan.json"
        if not store.exists(path) or store.read_bytes(path) != plan:
            store.remove(self._folder)
            store.write_bytes(path, plan)
        self._count = 0
        while store.exists(self._path(self._count + 1)):
            self._count += 1

    def reached(self) -> Reached:
        """What the last part says."""
        if self._count == 0:
            return Reached()
        document = _document(self._load(self._count))
        return Reached(
            Position(**document["position"]), document["reached_items"], document["seen_bytes"], Skipped(**document["skipped"])
        )

    def add(self, vectors_NE: Matrix, items: Sequence[tuple[str, JSON]], reached: Reached) -> None:
        """It is on disk when this returns. Raises TakenOver."""
        document = {
            "items": items, "position": asdict(reached.position), "reached_items": reached.items,
            "seen_bytes": reached.seen_bytes, "skipped": asdict(reached.skipped),
        }  # fmt: skip
        file = io.BytesIO()
        np.savez(file, vectors=vectors_NE, document=np.frombuffer(json.dumps(document).encode(), np.uint8))
        if not self._store.create_bytes(self._path(self._count + 1), file.getvalue()):
            raise TakenOver(f"part {self._count + 1} of {self._folder} was written by somebody else")
        self._count += 1

    def __iter__(self) -> Iterator[tuple[Matrix, list[tuple[str, JSON]]]]:
        """All of them, in order: vectors (N, E) and (id, metadata)."""
        for number in range(1, self._count + 1):
            part = self._load(number)
            yield part["vectors"], [(id, metadata) for id, metadata in _document(part)["items"]]

    def _load(self, number: int) -> Any:
        return np.load(io.BytesIO(self._store.read_bytes(self._path(number))), allow_pickle=False)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.npz"


def _document(part: Any) -> JSON:
    document: JSON = json.loads(part["document"].tobytes())
    return document


def _plan(request: IndexRequest, urls: Sequence[str]) -> JSON:
    """What parts depend on."""
    assert request.source is not None
    shards = hashlib.sha256(json.dumps([(url, _contents(url)) for url in urls]).encode()).hexdigest()
    return {"model": request.model, "shards": shards, **request.source.model_dump(include={"image_key", "metadata_keys"})}


def _contents(url: str) -> str | None:
    """Another text when the file is another: of its size, times or checksum, as the store has them.

    null where nobody knows; that a shard is missing is found when it is read.
    """
    try:
        fs, path = open_filesystem(url)
        return str(fs.ukey(path))
    except (OSError, ValueError):
        return None
