"""Passes over samples and texts: every image is decoded once and encoded by several models.

Shapes: N images of the pass, B of a batch, E embedding size.
"""

import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, sample_errors
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.evaluation.predictions import Place, place_of
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.precision import exact
from tinyclip_workers.model.preprocessing import PixelInput, normalize
from tinyclip_workers.model.towers import encode_text
from tinyclip_workers.model.transfer import on_device

IMAGE_BATCH = 64
TEXT_BATCH = 256


@dataclass(frozen=True)
class ModelInEngine(LoadedModel):
    """A model whose embeddings an engine computes, in place of its towers in torch."""

    engine: Engine = field(kw_only=True)

    @classmethod
    def of(cls, loaded: LoadedModel, engine: Engine) -> "ModelInEngine":
        return cls(**vars(loaded), engine=engine)


@dataclass
class EmbeddedImages:
    """The images' embeddings by each model, and a value of each sample."""

    images_NE: dict[str, Tensor]
    """Embeddings by the model's name in the evaluation; of unit length, on the CPU."""
    keys: list[str]
    places: list[Place | None]
    """None for samples that were not read by `read_with_places`."""
    values: list[Any]
    ms_per_image: dict[str, float]
    """The image tower alone: median over the full batches of the pass, or over all batches if none is full."""

    def select(self, rows: list[int], values: list[Any]) -> "EmbeddedImages":
        """Return some of the images, with other values."""
        images_NE = {name: features_NE[rows] for name, features_NE in self.images_NE.items()}
        keys, places = [self.keys[row] for row in rows], [self.places[row] for row in rows]
        return EmbeddedImages(images_NE, keys, places, values, self.ms_per_image)


def embed_images(
    models: Mapping[str, LoadedModel],
    samples: Iterable[tuple[Sample, Any]],
    image_keys: Sequence[str],
    on_unreadable: Callable[[Sample, Any, Exception], None],
) -> EmbeddedImages:
    """Encode each sample's image with every model. Each sample comes with a value, which is returned with the embedding.

    `on_unreadable` is called for samples without a readable image.
    """
    keys: list[str] = []
    places: list[Place | None] = []
    values: list[Any] = []
    towers = {name: _TimedImageTower(loaded) for name, loaded in models.items()}
    forms = {loaded.pixels for loaded in models.values()}
    stream = iter(samples)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        while batch := list(islice(stream, IMAGE_BATCH)):
            images: list[dict[PixelInput, Tensor]] = []
            decoded = threads.map(lambda pair: _pixels_or_error(pair[0], image_keys, forms), batch)
            for (sample, value), image in zip(batch, decoded, strict=True):
                if isinstance(image, UnusableSample):
                    on_unreadable(sample, value, image)
                    continue
                images.append(image)
                values.append(value)
                keys.append(sample["__key__"])
                places.append(place_of(sample))
            for tower in towers.values() if images else ():
                tower.encode(torch.stack([image[tower.loaded.pixels] for image in images]))
    return EmbeddedImages(
        images_NE={name: tower.features() for name, tower in towers.items()},
        keys=keys,
        places=places,
        values=values,
        ms_per_image={name: tower.ms_per_image() for name, tower in towers.items()},
    )


def embed_texts(loaded: LoadedModel, texts: Sequence[str]) -> Tensor:
    """Encode texts: (texts, E), of unit length, on the CPU."""
    parts = [torch.zeros(0, loaded.layout.embed_dim)]
    for start in range(0, len(texts), TEXT_BATCH):
        batch = list(texts[start : start + TEXT_BATCH])
        if isinstance(loaded, ModelInEngine):
            parts.append(torch.from_numpy(loaded.engine.encode_text(batch)))
        else:
            parts.append(F.normalize(encode_text(loaded.model, loaded.tokenizer(batch)).float(), dim=-1).cpu())
    return _check_finite(torch.cat(parts), loaded.name)


def leading(rows_NE: Tensor, size: int) -> Tensor:
    """Return the leading numbers of embeddings, of unit length again: nested embeddings of that size."""
    return F.normalize(rows_NE[..., :size], dim=-1)


@contextmanager
def evaluation_mode(models: Iterable[LoadedModel], device: torch.device) -> Iterator[None]:
    """Put models on a device, in evaluation mode, exact and without gradients; restore their mode and device afterwards."""
    found = [loaded.model for loaded in models]
    with ExitStack() as stack, on_device(found, device), torch.no_grad(), exact():
        for model in found:
            stack.callback(model.train, model.training)
            model.eval()
        yield


@dataclass
class _TimedImageTower:
    """One model's image tower, the embeddings so far and the time that each batch took."""

    loaded: LoadedModel
    parts: list[Tensor] = field(default_factory=list)
    seconds: list[tuple[int, float]] = field(default_factory=list)

    def encode(self, pixels_BCHW: Tensor) -> None:
        device = self.loaded.model.logit_scale.device
        compute = _image_tower(self.loaded, pixels_BCHW)
        start = _synchronized_time(device)
        features_BE = compute()
        self.seconds.append((len(features_BE), _synchronized_time(device) - start))
        self.parts.append(_check_finite(features_BE, self.loaded.name).cpu())

    def features(self) -> Tensor:
        return torch.cat([torch.zeros(0, self.loaded.layout.embed_dim), *self.parts])

    def ms_per_image(self) -> float:
        full = [seconds / count for count, seconds in self.seconds if count == IMAGE_BATCH]
        return 1000 * statistics.median(full or [seconds / count for count, seconds in self.seconds] or [0.0])


def _image_tower(loaded: LoadedModel, pixels_BCHW: Tensor) -> Callable[[], Tensor]:
    """Return the call that computes the embeddings (B, E), of unit length, of uint8 images; only this call is timed."""
    if isinstance(loaded, ModelInEngine):
        engine, images_BHWC = loaded.engine, pixels_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
        return lambda: torch.from_numpy(engine.encode_image(images_BHWC))
    images_BCHW = normalize(pixels_BCHW.to(loaded.model.logit_scale.device), loaded.image_mean, loaded.image_std)
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    return lambda: F.normalize(loaded.model.encode_image(images_BCHW).float(), dim=-1)


def _pixels_or_error(
    sample: Sample, image_keys: Sequence[str], forms: Collection[PixelInput]
) -> dict[PixelInput, Tensor] | UnusableSample:
    """Return the image as uint8 (3, size, size) in each form, or the reason why it cannot be decoded."""
    try:
        with sample_errors():
            image = decode_image(image_bytes(sample, image_keys))
            return {form: eval_transform(form)(image) for form in forms}
    except UnusableSample as error:
        return error


def _check_finite(features: Tensor, name: str) -> Tensor:
    if not torch.isfinite(features).all():
        raise ValueError(f"embeddings of {name} are not finite: its training has diverged")
    return features


def _synchronized_time(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
