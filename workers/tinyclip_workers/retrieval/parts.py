"""The checkpoints of a build: encoded items in files of about a thousand, after the last of which a killed build resumes.

Parts are numbered from 1 without gaps. Each holds its items and the build's state after them. Shapes: N items, E embedding size.
"""

import hashlib
import io
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_build_parts
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.shard_files import describe_shard
from tinyclip_workers.retrieval.items import ShardPosition
from tinyclip_workers.retrieval.pictures import Place, Shard
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.types import Matrix

ROWS = 1024
"""Items after which a part is written: some ten seconds of work on one core."""


class ConcurrentBuild(RequestWithdrawn):
    """Another process writes the parts of this build; this one exits."""


@dataclass
class BuildState:
    """How far a build has read and encoded."""

    position: ShardPosition = field(default_factory=ShardPosition)
    items: int = 0
    seen_bytes: int = 0
    skipped: Skipped = field(default_factory=Skipped)


class EncodedParts:
    """The parts of one build."""

    def __init__(self, store: ArtifactsStore, request: IndexRequest, urls: Sequence[str]) -> None:
        """Keep the parts of an earlier attempt if its shards, unchanged since, and its request were the same."""
        self._store, self._folder = store, index_build_parts(request.name, request.build)
        self._writer = uuid.uuid4().hex  # distinguishes the parts of two processes: they encode the same items
        plan = json.dumps(_build_plan(request, urls)).encode()
        path = f"{self._folder}/plan.json"
        if not store.exists(path) or store.read_bytes(path) != plan:
            store.remove(self._folder)
            store.write_bytes(path, plan)
        self._count = 0
        while store.exists(self._path(self._count + 1)):
            self._count += 1

    def state(self) -> BuildState:
        """Return the state after the last part."""
        if self._count == 0:
            return BuildState()
        document = _document(self._load(self._count))
        position, skipped = ShardPosition(**document["position"]), Skipped(**document["skipped"])
        return BuildState(position, document["reached_items"], document["seen_bytes"], skipped)

    def add(
        self, vectors_NE: Matrix, items: Sequence[tuple[str, JSON]], places: Sequence[Place | None], state: BuildState
    ) -> None:
        """Write the next part durably. Raises ConcurrentBuild."""
        document = {
            "writer": self._writer, "items": items, "position": asdict(state.position), "reached_items": state.items,
            "seen_bytes": state.seen_bytes, "skipped": asdict(state.skipped), **_listed(places),
        }  # fmt: skip
        file = io.BytesIO()
        np.savez(file, vectors=vectors_NE, document=np.frombuffer(json.dumps(document).encode(), np.uint8))
        if not self._store.create_bytes(self._path(self._count + 1), file.getvalue()):
            raise ConcurrentBuild(f"another process has written part {self._count + 1} of {self._folder}")
        self._count += 1

    def __iter__(self) -> Iterator[tuple[Matrix, list[tuple[str, JSON]]]]:
        """Yield the parts in order: vectors (N, E) and (id, metadata)."""
        for number in range(1, self._count + 1):
            part = self._load(number)
            yield part["vectors"], [(id, metadata) for id, metadata in _document(part)["items"]]

    def places(self) -> Iterator[list[Place | None]]:
        """Yield the places of each part's items."""
        for number in range(1, self._count + 1):
            document = _document(self._load(number))
            yield _places(document) if "places" in document else [None] * len(document["items"])  # of an older version

    def _load(self, number: int) -> Any:
        return np.load(io.BytesIO(self._store.read_bytes(self._path(number))), allow_pickle=False)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.npz"


def _listed(places: Sequence[Place | None]) -> JSON:
    """Return places as JSON, each shard once."""
    shards = list(dict.fromkeys(place.shard for place in places if place is not None))
    numbers = {shard: number for number, shard in enumerate(shards)}
    listed = [
        None if place is None else (numbers[place.shard], place.sample, place.offset, place.length, place.crc)
        for place in places
    ]
    return {"places": listed, "shards": [asdict(shard) for shard in shards]}


def _places(document: JSON) -> list[Place | None]:
    shards = [Shard(each["url"], tuple(each["image_keys"]), each["sequential"]) for each in document["shards"]]
    return [None if place is None else Place(shards[place[0]], *place[1:]) for place in document["places"]]


def _document(part: Any) -> JSON:
    document: JSON = json.loads(part["document"].tobytes())
    return document


def _build_plan(request: IndexRequest, urls: Sequence[str]) -> JSON:
    """Return everything that parts depend on."""
    assert request.source is not None
    shards = hashlib.sha256(json.dumps([(url, _fingerprint(url)) for url in urls]).encode()).hexdigest()
    return {"model": request.model, "shards": shards, **request.source.model_dump(include={"image_key", "metadata_keys"})}


def _fingerprint(url: str) -> str | None:
    """Return a text that changes with the file; None if its store reports none. A missing shard is detected when it is read."""
    try:
        return describe_shard(url).stamp or None
    except (OSError, ValueError):
        return None
