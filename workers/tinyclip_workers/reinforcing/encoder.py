"""The encoder of a reinforcement: it keeps the teachers loaded, and writes the files of one shard after another.

K views of each image, P numbers of a view, E embedding size.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from tinyclip.schemas.datasets import ReinforcementPost

from tinyclip_workers.data.augment import View, crop_of, draw_view
from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.decoding import decode_crops
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.samples import Sample, captions_of, image_bytes
from tinyclip_workers.model.preprocessing import PixelInput
from tinyclip_workers.reinforcing.shard_files import (
    ReinforcedVersion,
    ShardImages,
    ShardTexts,
    ShardWriter,
    read_training_samples,
)
from tinyclip_workers.training.teachers.encoder import TeacherEncoder
from tinyclip_workers.types import Pixels

VIEWS_SEED = 0x7E1F
"""Seed of the views, the same for all reinforcements: the same request has the same result."""


def decode_view(
    data: bytes, forms: Sequence[PixelInput], post: ReinforcementPost, sample: int, number: int
) -> tuple[list[Pixels], View]:
    """Draw view `number` of an image, and decode it to each form as training does. `sample`: its number in the version.

    Raises UnreadableImage.
    """
    views: list[View] = []

    def draw(width: int, height: int) -> Crop:
        views.append(draw_view(post.augment, width, height, np.random.default_rng([VIEWS_SEED, sample, number])))
        return crop_of(views[0])

    return decode_crops(data, forms, draw), views[0]


@dataclass(frozen=True)
class _Decoded:
    """A sample (K crops and views), or its key and the reason why it cannot be used."""

    number: int
    """Among the training samples of the shard."""
    key: str
    crops: Sequence[list[Pixels]] = ()
    """In each form that a teacher reads."""
    views: Sequence[View] = ()
    captions: Sequence[str] = ()
    skipped: Skipped = field(default_factory=Skipped)


class ShardEncoder(ShardWriter):
    """Stores views that are drawn, and the embeddings that the teachers compute of them."""

    def __init__(self, version: ReinforcedVersion, encoder: TeacherEncoder, threads: int = 1) -> None:
        """`threads`: for decoding images while the teachers encode others; 1: in turns."""
        super().__init__(version, encoder.described)
        self._encoder, self._threads = encoder, threads
        self._firsts = version.index.first_samples()

    def fill(self, shard: int, samples: ShardSamples, images: ShardImages, texts: ShardTexts) -> Skipped:
        skipped, waiting, captions = Skipped(), list[_Decoded](), list[str]()
        for decoded in self._decoded(shard, samples):
            if decoded.skipped.samples:
                skipped = Skipped.sum([skipped, decoded.skipped])
                self.done += 1
                continue
            waiting.append(decoded)
            captions += [decoded.captions[number] for number in texts.new(decoded.captions)]
            if len(waiting) == max(1, self._encoder.batch // self.version.post.augmentations):
                self._store_images(images, waiting)
                waiting = []
            while len(captions) >= self._encoder.batch:
                texts.store(self._encoder.encode_texts(captions[: self._encoder.batch]))
                captions = captions[self._encoder.batch :]
        self._store_images(images, waiting)
        if captions:
            texts.store(self._encoder.encode_texts(captions))
        return skipped

    def _store_images(self, images: ShardImages, decoded: Sequence[_Decoded]) -> None:
        """Encode the views of samples, and store them."""
        if decoded:
            crops, views = ([one for each in decoded for one in getattr(each, name)] for name in ("crops", "views"))
            images.store([each.number for each in decoded], views, self._encode(crops, views))
            self.done += len(decoded)

    def _encode(self, crops: Sequence[list[Pixels]], views: Sequence[View]) -> list[torch.Tensor]:
        batch = self._encoder.batch
        starts = range(0, len(crops), batch)
        parts = [self._encoder.encode_images(crops[start : start + batch], views[start : start + batch]) for start in starts]
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def _decoded(self, shard: int, samples: ShardSamples) -> Iterator[_Decoded]:
        """Yield the training samples of a shard in order, decoded ahead by the threads."""
        found = enumerate(read_training_samples(self.version.index.shards[shard].url, samples))
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
        version, skipped = self.version, Skipped()
        key = sample["__key__"]
        with skipped.unusable(sample):
            captions = captions_of(sample, version.train.caption_key)
            captions += version.index.load_samples(shard).more_captions(row)
            data, place = image_bytes(sample, version.train.image_key), int(self._firsts[shard]) + row
            forms, count = self._encoder.pixels, version.post.augmentations
            crops, views = zip(*(decode_view(data, forms, version.post, place, view) for view in range(count)), strict=True)
            used = captions[:1] if version.post.captions == "first" else captions
            return _Decoded(number, key, crops, views, used)
        return _Decoded(number, key, skipped=skipped)
