"""Importing a reinforcement that the shards themselves contain, in the layout of DataCompDR.

Supported are crops and all operations of RandAugment; a view with any other transform is refused. An image that has changed since
cannot be used: where its crop does not fit, or where EXIF turns it. The live teachers verify some samples of each shard.

K views, M texts, E sum of the teachers' embedding sizes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyclip_workers.data.augment import neutral_view
from tinyclip_workers.data.datacompdr import PublishedView, published_views
from tinyclip_workers.data.decoding import decode_crops
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.images import open_image, upright_transpose
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.operations import apply_operations
from tinyclip_workers.data.published_embeddings import published_embeddings
from tinyclip_workers.data.reinforcement.file_format import MAX_OPERATIONS
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_of, image_bytes
from tinyclip_workers.model.towers import normalized
from tinyclip_workers.reinforcing.shard_files import (
    ReinforcedVersion,
    ShardImages,
    ShardTexts,
    ShardWriter,
    read_training_samples,
)
from tinyclip_workers.training.teachers.encoder import TeacherEncoder
from tinyclip_workers.types import Pixels

VERIFIED = 4
"""Samples of each shard that the live teachers verify."""
LEAST_COSINE = 0.95
"""Of a published embedding to the live teacher's: decoders of images and precisions differ."""


class PublishedShards(ShardWriter):
    """Stores the views and embeddings that are in the shards."""

    def __init__(self, version: ReinforcedVersion, encoder: TeacherEncoder) -> None:
        super().__init__(version, encoder.described)
        self._encoder = encoder

    def fill(self, shard: int, samples: ShardSamples, images: ShardImages, texts: ShardTexts) -> Skipped:
        skipped, verified = Skipped(), 0
        url = self.version.index.shards[shard].url
        for number, (row, sample) in enumerate(read_training_samples(url, samples)):
            self.done += 1
            found: _Found | None = None
            with skipped.unusable(sample):
                found = self._read(samples, row, sample, decode=verified < VERIFIED)
            if found is None:
                continue
            if found.pixels is not None:
                self._verify(url, sample["__key__"], found)
                verified += 1
            images.store([number], [neutral_view(view.crop) for view in found.views], found.image_KE.split(self.widths, dim=1))
            images.store_operations(number, [view.operations for view in found.views])
            used = found.captions[:1] if self.version.post.captions == "first" else found.captions
            if new := texts.new(used):
                texts.store(found.text_ME[new].split(self.widths, dim=1))
        return skipped

    def _read(self, samples: ShardSamples, row: int, sample: Sample, *, decode: bool) -> "_Found":
        """Return what a sample has, with the pixels of its first view if `decode`. Raises any exception."""
        captions = captions_of(sample, self.version.train.caption_key) + samples.more_captions(row)
        views = self._views(sample)
        pixels = None
        if decode:
            data, crop = image_bytes(sample, self.version.train.image_key), views[0].crop
            squares = decode_crops(data, self._encoder.pixels, lambda *_: crop)
            pixels = [apply_operations(square, views[0].operations) for square in squares]
        return _Found(captions, views, *self._embeddings(sample, len(views), len(captions)), pixels)

    def _views(self, sample: Sample) -> list[PublishedView]:
        """Return the first K views. Raises UnusableSample, or any exception."""
        views, count = published_views(sample), self.version.post.augmentations
        if len(views) < count:
            raise UnusableSample(f"it has {len(views)} views, {count} are wanted; lower augmentations")
        image = open_image(image_bytes(sample, self.version.train.image_key))
        if upright_transpose(image) is not None:
            raise UnusableSample("its image is turned by EXIF, which its crops do not consider")
        for view in views[:count]:
            view.crop.check_fits(*image.size)
            if len(view.operations) > MAX_OPERATIONS:
                raise UnusableSample(f"a view has {len(view.operations)} operations, at most {MAX_OPERATIONS} are supported")
        return views[:count]

    def _embeddings(self, sample: Sample, views: int, texts: int) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the first views and of all texts, of length 1 for each teacher. Raises any exception."""
        image_KE, text_ME = published_embeddings(sample)
        if image_KE.shape[1] != sum(self.widths):
            sizes = " + ".join(map(str, self.widths))
            raise UnusableSample(f"its embeddings have {image_KE.shape[1]} numbers, the teachers {sizes}")
        if len(image_KE) < views or len(text_ME) != texts:
            raise UnusableSample(f"it has embeddings of {len(image_KE)} views and {len(text_ME)} texts, not {views} and {texts}")
        return self._unit(image_KE[:views]), self._unit(text_ME)

    def _unit(self, x_BE: Tensor) -> Tensor:
        return torch.cat([normalized(part) for part in x_BE.split(self.widths, dim=1)], dim=1)

    def _verify(self, url: str, key: str, found: "_Found") -> None:
        """Compare the embeddings of the first view and the first caption with the live teachers'. Raises DataError."""
        assert found.pixels is not None
        images = self._encoder.encode_images([found.pixels], [neutral_view(found.views[0].crop)])
        texts = self._encoder.encode_texts(found.captions[:1])
        for kind, live, stored_BE in (("images", images, found.image_KE), ("texts", texts, found.text_ME)):
            for teacher, live_1E, stored_1E in zip(
                self._encoder.described, live, stored_BE[:1].split(self.widths, dim=1), strict=True
            ):
                cosine = float((live_1E * stored_1E).sum())
                if not cosine >= LEAST_COSINE:
                    raise DataError(
                        f"the embeddings of {kind} in {url} are not those of {teacher.name}: the cosine is {cosine:.4f} for "
                        f"sample {key}, at least {LEAST_COSINE} is expected; name the teachers that have computed them, in order",
                        field="teacher",
                        value=teacher.name,
                    )


@dataclass(frozen=True)
class _Found:
    """The content of a sample in the published layout."""

    captions: list[str]
    views: list[PublishedView]
    image_KE: Tensor
    text_ME: Tensor
    pixels: list[Pixels] | None
    """Of the first view, in each form that a teacher reads, if it is verified."""
