"""The Ray actor that encodes shards."""

from typing import Any

import torch
from tinyclip.artifacts.documents import ReinforcementRequest

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.shards import BROKEN_SHARD
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.reinforcing.encoder import ShardEncoder
from tinyclip_workers.reinforcing.inputs import IMPORTED, description, load_encoder, precision_for, reinforced_version
from tinyclip_workers.reinforcing.pool import Failure
from tinyclip_workers.reinforcing.progress import ShardCounts
from tinyclip_workers.reinforcing.published import PublishedShards
from tinyclip_workers.reinforcing.shard_files import ShardWriter
from tinyclip_workers.runtime.filesystems import open_own_store


class EncoderActor:
    """An actor of the pool, with the teachers on its device. Errors are returned: not all can be pickled."""

    def __init__(self, root: str, folder: str, request: dict[str, Any], threads: int, gpu: bool) -> None:
        """`threads`: for decoding images, beside the one that encodes them; 1: in turns."""
        self._root, self._folder, self._threads = root, folder, threads
        self._request = ReinforcementRequest.model_validate(request)
        self._device = torch.device("cuda" if gpu else "cpu")
        self._writer: ShardWriter | None = None

    def describe(self) -> dict[str, Any] | Failure:
        """Load the teachers; returns what the result depends on beside the request."""
        torch.set_num_threads(1)
        store, post = open_own_store(self._root), self._request.request
        try:
            version = reinforced_version(store, self._folder, self._request)
            precision = precision_for(post, self._device)
            teachers = load_encoder(post, self._device, precision)
        except TeacherError as error:
            return teacher_failure(error)
        except OSError as error:
            return Failure("reinforcement_failed", str(error), retryable=True)
        computed = post.embeddings == "compute"
        self._writer = ShardEncoder(version, teachers, self._threads) if computed else PublishedShards(version, teachers)
        return description(teachers, precision.name if computed else IMPORTED)

    def encode(self, shard: int) -> ShardCounts | Failure:
        """Encode a shard and write its files."""
        torch.set_num_threads(1)
        assert self._writer is not None
        try:
            return self._writer.write(shard)
        except DataError as error:
            return Failure("unusable_data", str(error), f"/{error.field.replace('.', '/')}", error.value)
        except BROKEN_SHARD as error:
            return Failure("unusable_data", f"shard {shard} cannot be read: {error}", retryable=True)

    def done(self) -> int:
        """Return the samples of the current shard that are encoded."""
        return self._writer.done if self._writer is not None else 0


def teacher_failure(error: TeacherError) -> Failure:
    return Failure("unusable_teacher", str(error), error.pointer, error.value)
