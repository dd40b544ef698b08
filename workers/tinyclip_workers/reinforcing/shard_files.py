"""The two files of a shard: views and embeddings of its images, and embeddings of its texts.

K views of each image, N training samples of the shard, B of a batch, P numbers of a view, E embedding size.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tinyclip.artifacts.documents import StoredTeacher
from tinyclip.artifacts.paths import reinforcement_images
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TrainData
from torch import Tensor

from tinyclip_workers.data.augment import View
from tinyclip_workers.data.datacompdr import Operation
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.reading import shard_changed
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.index.scanning import READ_BYTES, content_crc
from tinyclip_workers.data.reinforcement import file_format
from tinyclip_workers.data.reinforcement.embeddings import SCALE, to_stored
from tinyclip_workers.data.reinforcement.tensor_files import Array, NewTensorFile
from tinyclip_workers.data.reinforcement.texts import TextTable, hash_of
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.reinforcing.progress import ShardCounts, unmerged_texts, write_counts


@dataclass(frozen=True)
class ReinforcedVersion:
    """The content and the place of a reinforcement: the request, and the version of the data set."""

    store: ArtifactsStore
    folder: str
    post: ReinforcementPost
    version: DatasetVersion
    index: DatasetIndex

    @cached_property
    def train(self) -> TrainData:
        """Keys and holdout of the data set."""
        source = self.version.source
        return TrainData(
            shards=source.shards, image_key=source.image_key, caption_key=source.caption_key, holdout=self.version.holdout
        )


class ShardWriter(ABC):
    """Writes the files of shards."""

    def __init__(self, version: ReinforcedVersion, teachers: Sequence[StoredTeacher]) -> None:
        self.version, self.widths = version, [teacher.embed_dim for teacher in teachers]
        self.done = 0
        """Samples of the current shard that are dealt with."""

    def write(self, shard: int) -> ShardCounts:
        """Write the files of a shard, and then its counts. Raises DataError if it has changed, OSError."""
        self.done = 0
        version, samples = self.version, self.version.index.load_samples(shard)
        with tempfile.TemporaryDirectory(prefix="tinyclip-reinforcement-") as folder:
            images = ShardImages(Path(folder) / "images.safetensors", version.post, samples, self.widths)
            texts = ShardTexts(version.post.dtype)
            skipped = self.fill(shard, samples, images, texts)
            texts.write(version.store, unmerged_texts(version.folder, shard), shard, self.widths, Path(folder))
            size = images.file.save(version.store, reinforcement_images(version.folder, shard))
        usable = int(images.file[file_format.USABLE].sum())
        counts = ShardCounts(samples=usable, skipped=skipped.samples, texts=len(texts), bytes=size, examples=skipped.examples)
        write_counts(version.store, version.folder, shard, counts)
        return counts

    @abstractmethod
    def fill(self, shard: int, samples: ShardSamples, images: "ShardImages", texts: "ShardTexts") -> Skipped:
        """Store all training samples of a shard; returns those that cannot be used. Raises DataError, OSError."""


def read_training_samples(url: str, samples: ShardSamples) -> Iterator[tuple[int, Sample]]:
    """Yield row and content of the training samples of a shard. Raises DataError if it has changed, or one of BROKEN_SHARD."""
    training, row = set(samples.training_rows.tolist()), -1
    for row, sample in enumerate(read_shard(url, block_bytes=READ_BYTES)):
        if row >= len(samples):
            break
        if sample["__key__"] != samples.key(row) or content_crc(sample) != int(samples.crc_N[row]):
            raise shard_changed(url, f"sample {samples.key(row)!r} is another one")
        if row in training:
            yield row, sample
        if row == len(samples) - 1:
            return
    raise shard_changed(url, f"it has {row + 1} samples, not {len(samples)}")


class ShardImages:
    """The new file of a shard's images."""

    def __init__(self, path: Path, post: ReinforcementPost, samples: ShardSamples, widths: Sequence[int]) -> None:
        rows, self._post = samples.training_rows, post
        operations = post.embeddings == "datacompdr"
        shapes = file_format.image_shapes(post.augmentations, len(rows), widths, post.dtype, operations=operations)
        self.file = NewTensorFile(path, shapes)
        self.file[file_format.ROWS][:] = rows
        if operations:
            self.file[file_format.OPERATIONS][:, :, :, 0] = file_format.NO_OPERATION

    def store(self, at: Sequence[int], views: Sequence[View], embeddings: Sequence[Tensor]) -> None:
        """Store samples by their numbers among the training samples (B), with all views (B*K of P) and teachers (B*K, E)."""
        count, places = self._post.augmentations, list(at)
        self.file[file_format.USABLE][places] = 1
        self.file[file_format.VIEWS][:, places] = np.stack(views).reshape(len(places), count, -1).swapaxes(0, 1)
        for teacher, image_BE in enumerate(embeddings):
            numbers, scales = to_stored(image_BE, self._post.dtype)
            name = file_format.image(teacher)
            self.file[name][:, places] = numbers.reshape(len(places), count, -1).swapaxes(0, 1)
            if scales is not None:
                self.file[name + SCALE][:, places] = scales.reshape(len(places), count).T

    def store_operations(self, at: int, views: Sequence[Sequence[Operation]]) -> None:
        """Store the operations of each view of a sample (K)."""
        for view, operations in enumerate(views):
            for place, operation in enumerate(operations):
                self.file[file_format.OPERATIONS][view, at, place] = operation


class ShardTexts:
    """The distinct texts of a shard in the order in which they occur, and their embeddings."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._hashes: dict[tuple[int, int], None] = {}
        self._stored: list[list[tuple[Array, Array | None]]] = []

    def __len__(self) -> int:
        return len(self._hashes)

    def new(self, texts: Sequence[str]) -> list[int]:
        """Add texts; returns the numbers of those that were not there yet, whose embeddings are to be stored next."""
        found = []
        for number, text in enumerate(texts):
            hashed = hash_of(text)
            if hashed not in self._hashes:
                self._hashes[hashed] = None
                found.append(number)
        return found

    def store(self, embeddings: Sequence[Tensor]) -> None:
        """Store the embeddings of the next new texts by each teacher (B, E)."""
        self._stored.append([to_stored(text_BE, self._dtype) for text_BE in embeddings])

    def write(self, store: ArtifactsStore, path: str, shard: int, widths: Sequence[int], folder: Path) -> None:
        """Write all texts, before those that other shards have as well are removed."""
        table, count = TextTable.of(shard, self._hashes), len(self)
        shapes = file_format.text_shapes(count, count, widths, self._dtype, complete=False)
        file = NewTensorFile(folder / "texts.safetensors", shapes)
        file[file_format.HASHES][:] = table.hashes_2M
        file[file_format.OWNERS][:], file[file_format.PLACES][:] = table.owners_M, table.places_M
        file[file_format.KEPT][:], file[file_format.BUCKETS][:] = np.arange(count), table.buckets()
        start = 0
        for batch in self._stored:
            end = start + len(batch[0][0])
            for teacher, (numbers, scales) in enumerate(batch):
                file[file_format.text(teacher)][start:end] = numbers
                if scales is not None:
                    file[file_format.text(teacher) + SCALE][start:end] = scales
            start = end
        file.save(store, path)
