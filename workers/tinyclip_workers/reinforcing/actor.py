"""The Ray actor that encodes shards, and what it is made of: the teachers of a request, and the version of the data set."""

import math
from typing import Any

import torch
from tinyclip.artifacts.documents import ReinforcementRequest
from tinyclip.artifacts.paths import dataset_document, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TeacherAt

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import open_index
from tinyclip_workers.data.shards import BROKEN_SHARD
from tinyclip_workers.model.architecture import state_shapes
from tinyclip_workers.model.precision import Precision, precision_of
from tinyclip_workers.model.sources import TeacherError, find_teacher, load_teacher
from tinyclip_workers.reinforcing.encoder import ReinforcedVersion, ShardEncoder
from tinyclip_workers.reinforcing.pool import EncodingFailed, Failure
from tinyclip_workers.reinforcing.progress import ShardCounts
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.training.teacher_encoder import TeacherEncoder

FLOAT_BYTES = 4


class EncoderActor:
    """An actor of the pool, with the teachers on its device. Errors are returned: not all can be pickled."""

    def __init__(self, root: str, folder: str, request: dict[str, Any], threads: int, gpu: bool) -> None:
        """`threads`: for decoding images, beside the one that encodes them; 1: in turns."""
        self._root, self._folder, self._threads = root, folder, threads
        self._request = ReinforcementRequest.model_validate(request)
        self._device = torch.device("cuda" if gpu else "cpu")
        self._encoder: ShardEncoder | None = None

    def describe(self) -> dict[str, Any] | Failure:
        """Load the teachers; returns what the result depends on beside the request."""
        torch.set_num_threads(1)
        store, post = open_own_store(self._root), self._request.request
        try:
            version = reinforced_version(store, self._folder, self._request)
            precision = precision_for(post, self._device)
            teachers = load_encoder(post, self._device, precision)
        except TeacherError as error:
            return _teacher_failure(error)
        except OSError as error:
            return Failure("reinforcement_failed", str(error), retryable=True)
        self._encoder = ShardEncoder(version, teachers, self._threads)
        return description(teachers, precision)

    def encode(self, shard: int) -> ShardCounts | Failure:
        """Encode a shard and write its files."""
        torch.set_num_threads(1)
        assert self._encoder is not None
        try:
            return self._encoder.encode(shard)
        except DataError as error:
            return Failure("unusable_data", str(error), f"/{error.field.replace('.', '/')}", error.value)
        except BROKEN_SHARD as error:
            return Failure("unusable_data", f"shard {shard} cannot be read: {error}", retryable=True)

    def done(self) -> int:
        """Return the samples of the current shard that are encoded."""
        return self._encoder.done if self._encoder is not None else 0


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
    version = read_version(store, request.dataset, request.version)
    index = open_index(store, dataset_version(request.dataset, request.version), version.digest)
    return ReinforcedVersion(store, folder, request.request, version, index)


def description(teachers: TeacherEncoder, precision: Precision) -> dict[str, Any]:
    """Return what the embeddings depend on, beside the request."""
    return {
        "teachers": [teacher.model_dump(mode="json") for teacher in teachers.described],
        "context_length": teachers.context_length,
        "precision": precision.name,
        "batch": teachers.batch,
    }


def teacher_bytes(post: ReinforcementPost) -> int:
    """Return the bytes of all teachers' weights. Raises EncodingFailed if one cannot be used."""
    try:
        layouts = [find_teacher(at.spec, at.pointer).layout for at in teachers_of(post)]
    except TeacherError as error:
        raise EncodingFailed(_teacher_failure(error)) from error
    return sum(FLOAT_BYTES * math.prod(shape) for layout in layouts for shape in state_shapes(layout).values())


def read_version(store: ArtifactsStore, dataset: str, version: int) -> DatasetVersion:
    """Raises DataError, OSError."""
    data = store.read_if_exists(dataset_document(dataset, version))
    if data is None:
        raise DataError(f"there is no version {version} of data set {dataset}", field="dataset", value=dataset)
    return DatasetVersion.model_validate_json(data)


def _teacher_failure(error: TeacherError) -> Failure:
    return Failure("unusable_teacher", str(error), error.pointer, error.value)
