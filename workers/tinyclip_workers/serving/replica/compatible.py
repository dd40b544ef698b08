"""Searching an index of another model: its teacher's or its student's, if the two were measured to be compatible.

A student's version names its teacher by the weights, has what was measured, and perhaps the axes that its embeddings are on.
"""

import threading
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load as from_safetensors
from tinyclip.artifacts.paths import MODEL_DOCUMENT, model_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import ModelVersion

from tinyclip_workers.types import Matrix

LEAST_SHARE = 0.9
"""The least R@10 across the models, as a share of the teacher's own, from which on an index of the other may answer."""


@dataclass(frozen=True)
class Bridge:
    """The way from a model's embeddings to those of a compatible model."""

    share: float
    """R@10 across the models, as a share of the teacher's own: the lower of both directions."""
    matrix_EE: Matrix | None
    """None: the coordinates are the same."""

    def __call__(self, query_E: Matrix) -> Matrix:
        """Return an embedding in the other model's coordinates."""
        return query_E if self.matrix_EE is None else self.matrix_EE @ query_E

    @property
    def measured(self) -> str:
        """The measured share, for messages."""
        return f"across the two models, texts find {100 * self.share:.1f}% of what the teacher finds with its own (R@10)"


class CompatibleModels:
    """The bridges between models of a store. Thread-safe; its calls read the store."""

    def __init__(self, store: ArtifactsStore) -> None:
        self._store = store
        self._known: dict[tuple[str, str], Bridge | None] = {}
        self._lock = threading.Lock()

    def bridge(self, model: str, other: str) -> Bridge | None:
        """Return the way from one `name@version` to another; None if neither is the other's teacher, or it was not measured.

        Raises StoreUnavailable.
        """
        with self._lock:
            if (model, other) in self._known:
                return self._known[model, other]
        found = self._read(model, other)
        with self._lock:
            self._known[model, other] = found
        return found

    def _read(self, model: str, other: str) -> Bridge | None:
        own, theirs = self._version(model), self._version(other)
        if own is None or theirs is None:
            return None
        if _is_teacher(theirs, own):
            return self._bridge(own, to_teacher=True)
        return self._bridge(theirs, to_teacher=False) if _is_teacher(own, theirs) else None

    def _bridge(self, student: ModelVersion, *, to_teacher: bool) -> Bridge:
        found = student.compatible_with
        assert found is not None, "a student that has a teacher"
        if found.axes is None:
            return Bridge(found.share, None)
        file = f"{model_version(student.name, student.version)}/{found.axes}"
        axes_EE = np.ascontiguousarray(from_safetensors(self._store.read_bytes(file))["axes"], np.float32)
        return Bridge(found.share, axes_EE if to_teacher else axes_EE.T)

    def _version(self, model: str) -> ModelVersion | None:
        name, _, number = model.partition("@")
        path = f"{model_version(name, int(number))}/{MODEL_DOCUMENT}" if number.isdecimal() else ""
        if not path or not self._store.exists(path):
            return None
        return ModelVersion.model_validate_json(self._store.read_bytes(path))


def _is_teacher(teacher: ModelVersion, student: ModelVersion) -> bool:
    found = student.compatible_with
    return found is not None and found.sha256 in {file.sha256 for file in teacher.files}
