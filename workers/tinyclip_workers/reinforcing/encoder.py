"""The encoder of a reinforcement: it keeps the teachers loaded, and writes the files of one shard after another.

K views of each image, N training samples of the shard, P numbers of a view, E embedding size.
"""

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tinyclip.artifacts.paths import reinforcement_images
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.augment import View, crop_of, draw_view
from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.decoding import decode_crop
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.reading import shard_changed
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.index.scanning import READ_BYTES, content_crc
from tinyclip_workers.data.reinforcement import file_format
from tinyclip_workers.data.reinforcement.embeddings import SCALE, to_stored
from tinyclip_workers.data.reinforcement.tensor_files import Array, NewTensorFile
from tinyclip_workers.data.reinforcement.texts import TextTable, hash_of
from tinyclip_workers.data.samples import Sample, captions_of, image_bytes
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.reinforcing.progress import ShardCounts, unmerged_texts, write_counts
from tinyclip_workers.training.teacher_encoder import TeacherEncoder
from tinyclip_workers.types import Pixels

VIEWS_SEED = 0x7E1F
"""Seed of the views, the same for all reinforcements: the same request has the same result."""


def decode_view(data: bytes, size: int, post: ReinforcementPost, sample: int, number: int) -> tuple[Pixels, View]:
    """Draw view `number` of an image, and decode it to (size, size, 3) as training does. `sample`: its number in the version.

    Raises UnreadableImage.
    """
    views: list[View] = []

    def draw(width: int, height: int) -> Crop:
        views.append(draw_view(post.augment, width, height, np.random.default_rng([VIEWS_SEED, sample, number])))
        return crop_of(views[0])

    return decode_crop(data, size, draw), views[0]


@dataclass(frozen=True)
class ReinforcedVersion:
    """What is encoded, and where to: the request, and the version of the data set."""

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


@dataclass(frozen=True)
class _Decoded:
    """A sample (K crops and views), or its key and the reason why it cannot be used."""

    number: int
    """Among the training samples of the shard."""
    key: str
    crops: Sequence[Pixels] = ()
    views: Sequence[View] = ()
    captions: Sequence[str] = ()
    skipped: Skipped = field(default_factory=Skipped)


class ShardEncoder:
    """Writes the files of shards."""

    def __init__(self, version: ReinforcedVersion, encoder: TeacherEncoder, threads: int = 1) -> None:
        """`threads`: for decoding images while the teachers encode others; 1: in turns."""
        self._version, self._encoder, self._threads = version, encoder, threads
        self._widths = [teacher.embed_dim for teacher in encoder.described]
        self._firsts = version.index.first_samples()
        self.done = 0
        """Samples of the current shard that are encoded."""

    def encode(self, shard: int) -> ShardCounts:
        """Encode a shard, and write its files. Raises DataError if it has changed, OSError."""
        self.done = 0
        version, post = self._version, self._version.post
        samples = version.index.load_samples(shard)
        rows, texts = samples.training_rows, _Texts(self._encoder, post.dtype)
        skipped = Skipped()
        with tempfile.TemporaryDirectory(prefix="tinyclip-reinforcement-") as folder:
            shapes = file_format.image_shapes(post.augmentations, len(rows), self._widths, post.dtype)
            file = NewTensorFile(Path(folder) / "images.safetensors", shapes)
            file[file_format.ROWS][:] = rows
            waiting: list[_Decoded] = []
            for decoded in self._decoded(shard, samples):
                if decoded.skipped.samples:
                    skipped = Skipped.sum([skipped, decoded.skipped])
                    self.done += 1
                    continue
                waiting.append(decoded)
                texts.add(decoded.captions)
                if len(waiting) == max(1, self._encoder.batch // post.augmentations):
                    self._write_images(file, waiting)
                    waiting = []
            self._write_images(file, waiting)
            texts.write(version.store, unmerged_texts(version.folder, shard), shard, self._widths, Path(folder))
            size = file.save(version.store, reinforcement_images(version.folder, shard))
        usable = int(file[file_format.USABLE].sum())
        counts = ShardCounts(samples=usable, skipped=skipped.samples, texts=len(texts), bytes=size, examples=skipped.examples)
        write_counts(version.store, version.folder, shard, counts)
        return counts

    def _write_images(self, file: NewTensorFile, decoded: Sequence[_Decoded]) -> None:
        """Encode the views of samples, and write them at their places."""
        if not decoded:
            return
        crops, views = ([one for each in decoded for one in getattr(each, name)] for name in ("crops", "views"))
        at = [each.number for each in decoded]
        count = self._version.post.augmentations
        file[file_format.USABLE][at] = 1
        file[file_format.VIEWS][:, at] = np.stack(views).reshape(len(at), count, -1).swapaxes(0, 1)
        for teacher, image_BE in enumerate(self._encode(crops, views)):
            numbers, scales = to_stored(image_BE, self._version.post.dtype)
            name = file_format.image(teacher)
            file[name][:, at] = numbers.reshape(len(at), count, -1).swapaxes(0, 1)
            if scales is not None:
                file[name + SCALE][:, at] = scales.reshape(len(at), count).T
        self.done += len(decoded)

    def _encode(self, crops: Sequence[Pixels], views: Sequence[View]) -> list[torch.Tensor]:
        batch = self._encoder.batch
        starts = range(0, len(crops), batch)
        parts = [self._encoder.encode_images(crops[start : start + batch], views[start : start + batch]) for start in starts]
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def _decoded(self, shard: int, samples: ShardSamples) -> Iterator[_Decoded]:
        """Yield the training samples of a shard in order, decoded ahead by the threads."""
        found = enumerate(read_training_samples(self._version.index.shards[shard].url, samples))
        if self._threads == 1:
            yield from (self._decode(shard, number, row, sample) for number, (row, sample) in found)
            return
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            waiting: deque[Future[_Decoded]] = deque()
            for number, (row, sample) in found:
                waiting.append(pool.submit(self._decode, shard, number, row, sample))
                if len(waiting) > 4 * self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _decode(self, shard: int, number: int, row: int, sample: Sample) -> _Decoded:
        """Decode a sample, whose number among the training samples of the shard is `number`."""
        version, skipped = self._version, Skipped()
        key = sample["__key__"]
        with skipped.unusable(sample):
            captions = captions_of(sample, version.train.caption_key)
            captions += version.index.load_samples(shard).more_captions(row)
            data, place = image_bytes(sample, version.train.image_key), int(self._firsts[shard]) + row
            size, count = self._encoder.image_size, version.post.augmentations
            crops, views = zip(*(decode_view(data, size, version.post, place, view) for view in range(count)), strict=True)
            used = captions[:1] if version.post.captions == "first" else captions
            return _Decoded(number, key, crops, views, used)
        return _Decoded(number, key, skipped=skipped)


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


class _Texts:
    """The distinct texts of a shard in the order in which they occur, and their embeddings."""

    def __init__(self, encoder: TeacherEncoder, dtype: str) -> None:
        self._encoder, self._dtype = encoder, dtype
        self._hashes: dict[tuple[int, int], None] = {}
        self._waiting: list[str] = []
        self._stored: list[list[tuple[Array, Array | None]]] = []

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, texts: Sequence[str]) -> None:
        for text in texts:
            found = hash_of(text)
            if found not in self._hashes:
                self._hashes[found] = None
                self._waiting.append(text)
        batch = self._encoder.batch
        while len(self._waiting) >= batch:
            self._encode(self._waiting[:batch])
            del self._waiting[:batch]

    def _encode(self, texts: Sequence[str]) -> None:
        self._stored.append([to_stored(text_BE, self._dtype) for text_BE in self._encoder.encode_texts(texts)])

    def write(self, store: ArtifactsStore, path: str, shard: int, widths: Sequence[int], folder: Path) -> None:
        """Write all texts, before those that other shards have as well are removed."""
        if self._waiting:
            self._encode(self._waiting)
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
