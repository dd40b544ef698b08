"""The frozen teachers of a stage, a list of one or more: each receives the images in the size and colors that it was trained on.

Shapes: B local batch, T tokens, E teacher embedding size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from tinyclip.artifacts.documents import StoredTeacher
from torch import Tensor

from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.precision import FP32, Precision
from tinyclip_workers.model.preprocessing import Color
from tinyclip_workers.model.towers import Model, TwoTowers, encode_tokens, normalized
from tinyclip_workers.model.transfer import constants
from tinyclip_workers.training.gradient_cache import micro_batches
from tinyclip_workers.training.objective.losses import TeacherEmbeddings


@dataclass(frozen=True)
class View:
    """A conversion of images made for the first teacher to the size and color normalization of another."""

    image_size: int
    factor: Color
    shift: Color

    @classmethod
    def of(cls, model: LoadedModel, first: LoadedModel) -> Self:
        """Convert from pixels normalised for `first` to pixels normalised for `model`."""
        colors = list(zip(first.image_mean, first.image_std, model.image_mean, model.image_std, strict=True))
        return cls(
            model.layout.image_size,
            factor=tuple(std / own_std for _, std, _, own_std in colors),  # type: ignore[arg-type]  # three, as in Color
            shift=tuple((mean - own_mean) / own_std for mean, _, own_mean, own_std in colors),  # type: ignore[arg-type]
        )

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Resize (bicubic, antialiased) and renormalise, each only where it changes anything."""
        if images_BCHW.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            images_BCHW = F.interpolate(images_BCHW, size, mode="bicubic", antialias=True)
        if self.factor == (1, 1, 1) and self.shift == (0, 0, 0):
            return images_BCHW
        factor, shift = (constants(color, images_BCHW).view(1, 3, 1, 1) for color in (self.factor, self.shift))
        return images_BCHW * factor + shift


class FrozenTeacher:
    """An original teacher: evaluation mode, no gradient, its own or a fixed temperature."""

    def __init__(self, model: Model, scale: float | None, *, view: View | None = None, weight: float = 1.0) -> None:
        """`scale` is the similarity multiplier, `None` for the model's own. `view` is `None` for the first teacher."""
        self.towers = TwoTowers(model).eval().requires_grad_(False)
        self.weight = weight
        self._scale, self._view = scale, view

    @property
    def embed_dim(self) -> int:
        """Size of its embeddings (E)."""
        return int(self.towers.clip.text_projection.shape[-1])

    def to(self, device: torch.device) -> Self:
        """Move the weights to a device."""
        self.towers.to(device)
        if device.type == "cuda":  # the format of the images: else convolutions would convert their weights every time
            self.towers.clip.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> TeacherEmbeddings:
        """Encode pairs. Tokens are the same for all teachers: those that the student reads."""
        if self._view is not None:
            images_BCHW = self._view(images_BCHW)
        image_BE, text_BE, own_scale = self.towers(images_BCHW, tokens_BT)
        return TeacherEmbeddings(image_BE, text_BE, own_scale if self._scale is None else self._scale, self.weight)

    def encode_images(self, images_BCHW: Tensor) -> Tensor:
        """Return embeddings of images (B, E), as they are in pairs."""
        return normalized(self.towers.clip.encode_image(images_BCHW if self._view is None else self._view(images_BCHW)))

    def encode_texts(self, tokens_BT: Tensor) -> Tensor:
        """Return embeddings of texts (B, E), as they are in pairs; tokens are trimmed already."""
        return normalized(encode_tokens(self.towers.clip, tokens_BT))


def freeze_teachers(models: Sequence[LoadedModel], weights: Sequence[float], scale: float | None) -> list[FrozenTeacher]:
    """Make teachers of loaded models; `scale` is their similarity multiplier, `None` for each one's own."""
    return [
        FrozenTeacher(loaded.model, scale, view=View.of(loaded, models[0]) if index else None, weight=weight)
        for index, (loaded, weight) in enumerate(zip(models, weights, strict=True))
    ]


def describe_teacher(model: LoadedModel, share: float) -> StoredTeacher:
    """Return what a teacher's embeddings depend on."""
    return StoredTeacher(
        name=model.name,
        sha256=model.digest,
        weight=share,
        scale=float(model.model.logit_scale.detach().exp()),
        embed_dim=model.layout.embed_dim,
        image_size=model.layout.image_size,
        image_mean=model.image_mean,
        image_std=model.image_std,
    )


@torch.no_grad()
def teachers_forward(
    teachers: Sequence[Callable[[Tensor, Tensor], TeacherEmbeddings]],
    images_BCHW: Tensor,
    tokens_BT: Tensor,
    precision: Precision = FP32,
    micro_batch: int | None = None,
) -> list[TeacherEmbeddings]:
    """Encode a local batch with every teacher, at most `micro_batch` pairs at once, without gradient."""
    parts = micro_batches(images_BCHW, tokens_BT, micro_batch)
    with precision.autocast():
        return [_concatenate([teacher(*part) for part in parts]) for teacher in teachers]


def _concatenate(parts: Sequence[TeacherEmbeddings]) -> TeacherEmbeddings:
    if len(parts) == 1:
        return parts[0]
    images, texts = torch.cat([part.image_BE for part in parts]), torch.cat([part.text_BE for part in parts])
    return replace(parts[0], image_BE=images, text_BE=texts)
