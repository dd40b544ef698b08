"""Label sets: labels with their templates, registered once under a name and then asked for by it.

They lie in the artifacts store, so that all replicas of a deployment know them, those of tomorrow too.
"""

import asyncio
import re
from dataclasses import dataclass
from time import monotonic

from tinyclip.schemas import LabelSet
from tinyclip.schemas.artifacts import label_set_file, label_sets_folder

from tinyclip_workers.runtime.store import Store
from tinyclip_workers.serving.queries.problems import Refusal, field_error, invalid, refuse

LOOK_EVERY_S = 2.0
"""How old the knowledge of a set may be: what another replica was told is known here after that."""
MAX_SETS = 1000
"""Of one deployment."""
KEPT = 64
"""Sets that a replica keeps in memory."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass
class _Known:
    found: LabelSet
    read_at: float


class LabelSets:
    """Those of one deployment. For one event loop."""

    def __init__(self, deployment: str, store: Store) -> None:
        self._deployment, self._store = deployment, store
        self._known: dict[str, _Known] = {}

    async def get(self, name: str, pointer: str = "/label_set") -> LabelSet:
        """As it is in the store, or was a moment ago. Raises Refusal: 422 for what cannot be a name, 404."""
        _check(name, pointer)
        known = self._known.get(name)
        if known is None or monotonic() - known.read_at >= LOOK_EVERY_S:
            known = await asyncio.to_thread(self._read, name)
            if known is None:
                self._known.pop(name, None)
                raise self._missing(name)
            self._keep(known)
        return known.found

    async def put(self, name: str, labels: list[str], templates: list[str]) -> tuple[LabelSet, bool]:
        """Write it whole; whether it is new. Raises Refusal: a bad name, or too many sets."""
        _check(name, "/name")
        made = LabelSet(name=name, labels=labels, templates=templates)
        is_new = await asyncio.to_thread(self._write, made)
        self._keep(_Known(made, monotonic()))
        return made, is_new

    async def delete(self, name: str) -> None:
        """Raises Refusal (404)."""
        await self.get(name, "/name")
        await asyncio.to_thread(self._store.remove, label_set_file(self._deployment, name))
        self._known.pop(name, None)

    async def names(self) -> list[str]:
        """Sorted."""
        return await asyncio.to_thread(self._names)

    def _keep(self, known: _Known) -> None:
        """In place of the one that was read longest ago, if there are too many."""
        self._known.pop(known.found.name, None)
        self._known[known.found.name] = known
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]

    def _read(self, name: str) -> _Known | None:
        read_at = monotonic()
        try:
            data = self._store.read_bytes(label_set_file(self._deployment, name))
        except FileNotFoundError:
            return None
        return _Known(LabelSet.model_validate_json(data), read_at)

    def _write(self, made: LabelSet) -> bool:
        names = self._names()
        is_new = made.name not in names
        if is_new and len(names) >= MAX_SETS:
            detail = f"this deployment has {MAX_SETS:,} label sets; DELETE one that is not needed any more"
            raise refuse(409, "too_many_label_sets", "Too many label sets", detail)
        self._store.write_bytes(label_set_file(self._deployment, made.name), made.model_dump_json().encode())
        return is_new

    def _names(self) -> list[str]:
        files = self._store.list(label_sets_folder(self._deployment))
        return sorted(file.removesuffix(".json") for file in files if file.endswith(".json"))

    def _missing(self, name: str) -> Refusal:
        detail = f"there is no label set {name} in deployment {self._deployment}; register it with PUT label-sets/{name}"
        return refuse(404, "no_such_label_set", "There is no such label set", detail)


def _check(name: str, pointer: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid(field_error(pointer, name, "is not the name of a label set (a-z, 0-9, '.', '_' and '-', at most 63)"))
