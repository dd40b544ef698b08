"""The teacher that a report measures agreement with: which one it is, and its embeddings of images and captions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_workers.engines.protocol import EngineReport
from tinyclip_workers.engines.torch_engine import TorchEngine
from tinyclip_workers.model.files.errors import HubError, TeacherError
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.sources import find_teacher, load_teacher
from tinyclip_workers.model.files.weights import file_digest
from tinyclip_workers.model.summary import state_shapes
from tinyclip_workers.types import Matrix, Pixels

BATCH = 32
BASE_BYTES, COPIES = 1 << 30, 2
"""Memory of a process with a teacher: without it, and in copies of the weights, as they are loaded."""


class Teacher:
    """A loaded teacher. It computes in one thread, in fp32, so that its embeddings do not depend on the node."""

    def __init__(self, spec: TeacherSpec) -> None:
        """Raises TeacherError."""
        torch.set_num_threads(1)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        report = EngineReport(engine="torch", asked="torch", reason="", device=device.type, threads=1)
        self._engine = TorchEngine(load_teacher(spec), device, report)
        self.image_size, self.batch = self._engine.image_size, BATCH

    def images(self, squares: Sequence[Pixels]) -> Matrix:
        """Return embeddings (N, E) of squares of pixels, of unit length."""
        parts = [np.stack(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]
        return np.concatenate([self._engine.encode_image(np.ascontiguousarray(part)) for part in parts])

    def texts(self, texts: Sequence[str]) -> Matrix:
        """Return embeddings (N, E) of texts, of unit length."""
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return np.concatenate([self._engine.encode_text(part) for part in parts])

    def agreements(self, squares: Sequence[Pixels], captions: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return for each image the mean similarity of its captions."""
        images_NE, texts = self.images(squares), [text for each in captions for text in each]
        owner = np.repeat(np.arange(len(captions)), [len(each) for each in captions])
        similarities = (images_NE[owner] * self.texts(texts)).sum(axis=1)
        sums_N = np.bincount(owner, weights=similarities, minlength=len(captions))
        mean_N: NDArray[np.float32] = (sums_N / np.array([len(each) for each in captions])).astype(np.float32)
        return mean_N


def teacher_of(spec: TeacherSpec) -> Teacher:
    """Return a teacher, which stays loaded in this process. Raises TeacherError."""
    return _loaded(spec.model_dump_json())


@lru_cache(1)
def _loaded(document: str) -> Teacher:
    return Teacher(TeacherSpec.model_validate_json(document))


@dataclass(frozen=True)
class FoundTeacher:
    """A teacher that is not loaded here."""

    spec: TeacherSpec
    source: ModelSource
    digest: str
    """Of its weights."""

    @property
    def memory(self) -> float:
        """Bytes of memory that a process with it takes."""
        return BASE_BYTES + COPIES * 4.0 * sum(math.prod(shape) for shape in state_shapes(self.source.layout).values())


def find(spec: TeacherSpec) -> FoundTeacher:
    """Find a teacher; its weights may be downloaded. Raises TeacherError."""
    source = find_teacher(spec)
    try:
        return FoundTeacher(spec, source, file_digest(source.weights()))
    except (OSError, HubError, ValueError) as error:
        raise TeacherError("/teacher/model", spec.model, str(error)) from error
