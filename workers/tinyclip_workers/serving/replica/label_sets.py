"""Label sets: labels with their templates, registered under a name that zero-shot queries use.

They are kept in the artifacts store, so that all replicas of a deployment share them and new ones find them.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from tinyclip.artifacts.paths import label_set_file, label_sets_folder
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import LabelSet, LabelSetSummary

from tinyclip_workers.serving.problems import ProblemError, field_error, invalid_input, problem_error
from tinyclip_workers.serving.replica.store_calls import call_store

REFRESH_SECONDS = 2.0
"""Maximum age of a cached label set: a change through another replica takes effect here after that. While the store does not
answer, the cached one is used."""
REFRESH_WAIT_SECONDS = 1.0
"""How long a query waits for the store if there is a cached label set."""
MAX_SETS = 1000
"""Label sets of a deployment."""
MAX_CACHED = 64
"""Label sets that a replica keeps in memory."""
MAX_CACHED_BYTES = 64 << 20
"""Memory of their labels and templates."""
READ_AT_ONCE = 8
"""Label sets that one list reads at once."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass
class _Cached:
    label_set: LabelSet
    read_at: float
    size: int = field(init=False)
    """Bytes of its labels and templates in memory."""
    checked_at: float = field(init=False)
    """When a query last began to read it again, or it was read."""

    def __post_init__(self) -> None:
        self.checked_at = self.read_at
        self.size = sum(map(sys.getsizeof, (*self.label_set.labels, *self.label_set.templates)))


class LabelSets:
    """The label sets of one deployment. For one event loop."""

    def __init__(self, deployment: str, store: ArtifactsStore) -> None:
        self._deployment, self._store = deployment, store
        self._cache: dict[str, _Cached] = {}
        """The set that was read longest ago is the first."""
        self._reading: set[asyncio.Task[LabelSet]] = set()

    async def get(self, name: str, pointer: str = "/label_set") -> LabelSet:
        """Return a label set, at most `REFRESH_SECONDS` old unless the store does not answer.

        Raises ProblemError: 422 for an invalid name, 404, and 503 if the store does not answer and none is cached.
        """
        _check_name(name, pointer)
        cached = self._cache.get(name)
        if cached is None:
            return await self._read_into_cache(name)
        if monotonic() - cached.checked_at < REFRESH_SECONDS:
            return cached.label_set
        cached.checked_at = monotonic()  # one query waits at a time
        reading = asyncio.create_task(self._read_into_cache(name))
        self._reading.add(reading)  # it continues after the wait: a slow store refreshes the cache too
        reading.add_done_callback(self._on_read)
        await asyncio.wait([reading], timeout=REFRESH_WAIT_SECONDS)
        if not reading.done():
            return cached.label_set
        try:
            return reading.result()
        except ProblemError as problem:
            if problem.problem.status != 503:
                raise
            return cached.label_set

    def _on_read(self, reading: asyncio.Task[LabelSet]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # retrieved, so that asyncio does not log it when no query is left

    async def _read_into_cache(self, name: str) -> LabelSet:
        """Raises ProblemError: 404, 503."""
        cached = await call_store(lambda: self._read(name))
        if cached is None:
            self._cache.pop(name, None)
            raise self._not_found(name)
        self._add_to_cache(cached)
        return cached.label_set

    async def put(self, name: str, labels: list[str], templates: list[str]) -> tuple[LabelSet, bool]:
        """Create or replace a label set; return it, and True if it is new. Raises ProblemError: bad name, too many sets."""
        _check_name(name, "/name")
        label_set = LabelSet(name=name, labels=labels, templates=templates)
        is_new, cached = await call_store(lambda: self._write(label_set))
        self._add_to_cache(cached)
        return label_set, is_new

    async def delete(self, name: str) -> None:
        """Raises ProblemError (404)."""
        await self.get(name, "/name")
        await call_store(lambda: self._store.remove(label_set_file(self._deployment, name)))
        self._cache.pop(name, None)

    async def summaries(self, names: Sequence[str]) -> list[LabelSetSummary]:
        """Return the numbers of labels and templates, reading few sets at once: all of them may be large.

        Sets that were deleted meanwhile are left out. Raises ProblemError (503).
        """
        found: list[LabelSetSummary] = []
        for start in range(0, len(names), READ_AT_ONCE):
            some = await asyncio.gather(*map(self._summary, names[start : start + READ_AT_ONCE]))
            found += filter(None, some)
        return found

    async def _summary(self, name: str) -> LabelSetSummary | None:
        try:
            one = await self.get(name)
        except ProblemError as problem:
            if problem.problem.status == 503:
                raise
            return None
        return LabelSetSummary(name=one.name, labels=len(one.labels), templates=len(one.templates))

    async def names(self) -> list[str]:
        """Return all names, sorted."""
        return await call_store(self._names)

    def _add_to_cache(self, cached: _Cached) -> None:
        """Add a set unless a newer one is cached, evicting those that were read longest ago if there is too much."""
        known = self._cache.get(cached.label_set.name)
        if known is not None and known.read_at > cached.read_at:
            return
        self._cache.pop(cached.label_set.name, None)
        self._cache[cached.label_set.name] = cached
        size = sum(each.size for each in self._cache.values())
        while len(self._cache) > MAX_CACHED or size > MAX_CACHED_BYTES:
            size -= self._cache.pop(next(iter(self._cache))).size

    def _read(self, name: str) -> _Cached | None:
        read_at = monotonic()
        try:
            data = self._store.read_bytes(label_set_file(self._deployment, name))
        except FileNotFoundError:
            return None
        return _Cached(LabelSet.model_validate_json(data), read_at)

    def _write(self, label_set: LabelSet) -> tuple[bool, _Cached]:
        names = self._names()
        is_new = label_set.name not in names
        if is_new and len(names) >= MAX_SETS:
            detail = f"this deployment has {MAX_SETS:,} label sets; DELETE one that is not needed any more"
            raise problem_error(409, "too_many_label_sets", "Too many label sets", detail)
        data = label_set.model_dump_json(exclude_defaults=True).encode()
        self._store.write_bytes(label_set_file(self._deployment, label_set.name), data)
        return is_new, _Cached(label_set, monotonic())

    def _names(self) -> list[str]:
        files = self._store.list(label_sets_folder(self._deployment))
        return sorted(file.removesuffix(".json") for file in files if file.endswith(".json"))

    def _not_found(self, name: str) -> ProblemError:
        detail = f"there is no label set {name} in deployment {self._deployment}; register it with PUT label-sets/{name}"
        return problem_error(404, "no_such_label_set", "There is no such label set", detail)


def _check_name(name: str, pointer: str) -> None:
    if not _NAME.fullmatch(name):
        message = "is not the name of a label set (a-z, 0-9, '.', '_' and '-', at most 63)"
        raise invalid_input(field_error(pointer, name, message))
