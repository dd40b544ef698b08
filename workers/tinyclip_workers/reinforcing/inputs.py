"""The inputs of a reinforcement: the teachers of a request, and the version of a data set."""

import math
from typing import Any

import torch
from tinyclip.artifacts.documents import ReinforcementRequest
from tinyclip.artifacts.paths import dataset_document, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TeacherAt

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import DatasetIndex, open_index
from tinyclip_workers.model.files.sources import find_teacher, load_teacher
from tinyclip_workers.model.precision import Precision, precision_of
from tinyclip_workers.model.summary import state_shapes
from tinyclip_workers.reinforcing.shard_files import ReinforcedVersion
from tinyclip_workers.training.teachers.encoder import TeacherEncoder

FLOAT_BYTES = 4
IMPORTED = "import"
"""The precision of embeddings that were computed elsewhere."""


def teachers_of(post: ReinforcementPost) -> list[TeacherAt]:
    """Return the teachers of a request with their places in it; shares add up to 1."""
    teachers = post.every_teacher()
    total = sum(teacher.weight for teacher in teachers)
    pointers = ["/teacher"] if post.teacher is not None else [f"/teachers/{number}" for number in range(len(teachers))]
    return [TeacherAt(pointer, each, each.weight / total) for pointer, each in zip(pointers, teachers, strict=True)]


def load_encoder(post: ReinforcementPost, device: torch.device, precision: Precision) -> TeacherEncoder:
    """Load the teachers of a request. Raises TeacherError."""
    at = teachers_of(post)
    originals = [load_teacher(teacher.spec, teacher.pointer) for teacher in at]
    return TeacherEncoder(originals, [teacher.share for teacher in at], post.augment, device, precision)


def precision_for(post: ReinforcementPost, device: torch.device) -> Precision:
    """Return the precision of the teachers: bf16 on GPUs that have it, unless more is stored; else fp32."""
    return precision_of("fp32" if post.dtype == "fp32" else "auto", device)


def reinforced_version(store: ArtifactsStore, folder: str, request: ReinforcementRequest) -> ReinforcedVersion:
    """Open the version of a request. Raises DataError, OSError."""
    version, index = open_version(store, request.dataset, request.version)
    return ReinforcedVersion(store, folder, request.request, version, index)


def open_version(store: ArtifactsStore, dataset: str, number: int) -> tuple[DatasetVersion, DatasetIndex]:
    """Read the document of a data set's version, and open its index. Raises DataError, OSError."""
    version = _read_version(store, dataset, number)
    return version, open_index(store, dataset_version(dataset, number), version.digest)


def description(teachers: TeacherEncoder, precision: str) -> dict[str, Any]:
    """Return what the embeddings depend on, beside the request. `precision`: of the computation, or IMPORTED."""
    return {
        "teachers": [teacher.model_dump(mode="json") for teacher in teachers.described],
        "context_length": teachers.context_length,
        "precision": precision,
        "batch": teachers.batch,
    }


def teacher_bytes(post: ReinforcementPost) -> int:
    """Return the bytes of all teachers' weights. Raises TeacherError."""
    layouts = [find_teacher(at.spec, at.pointer).layout for at in teachers_of(post)]
    return sum(FLOAT_BYTES * math.prod(shape) for layout in layouts for shape in state_shapes(layout).values())


def _read_version(store: ArtifactsStore, dataset: str, version: int) -> DatasetVersion:
    """Read the document of a data set's version. Raises DataError, OSError."""
    data = store.read_if_exists(dataset_document(dataset, version))
    if data is None:
        raise DataError(f"there is no version {version} of data set {dataset}", field="dataset", value=dataset)
    return DatasetVersion.model_validate_json(data)
