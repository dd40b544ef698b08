"""Several teachers of one student: each is shown the batch as it was taught to see.

Shapes: B local batch, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import Color
from tinyclip_workers.training.losses import Taught
from tinyclip_workers.training.step import FrozenTeacher


@dataclass(frozen=True)
class View:
    """How pictures that were made for the first teacher are shown to another: in its size and its colours."""

    image_size: int
    factor: Color
    shift: Color

    @classmethod
    def of(cls, model: LoadedModel, first: LoadedModel) -> Self:
        """From pixels normalised for `first` to pixels normalised for `model`."""
        colors = list(zip(first.image_mean, first.image_std, model.image_mean, model.image_std, strict=True))
        return cls(
            model.layout.image.image_size,
            factor=tuple(std / own_std for _, std, _, own_std in colors),  # type: ignore[arg-type]  # three, as in Color
            shift=tuple((mean - own_mean) / own_std for mean, _, own_mean, own_std in colors),  # type: ignore[arg-type]
        )

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Bicubic with antialiasing where the size differs."""
        if images_BCHW.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            images_BCHW = F.interpolate(images_BCHW, size, mode="bicubic", antialias=True)
        if self.factor == (1, 1, 1) and self.shift == (0, 0, 0):
            return images_BCHW
        factor, shift = (images_BCHW.new_tensor(color).view(1, 3, 1, 1) for color in (self.factor, self.shift))
        return images_BCHW * factor + shift


class Ensemble:
    """Several frozen teachers. What one alone is asked for, is asked of the first.

    Texts are the same tokens for all: those that the student reads.
    """

    def __init__(self, teachers: Sequence[FrozenTeacher], views: Sequence[View], shares: Sequence[float]) -> None:
        """`shares` add up to 1."""
        self._members = list(zip(teachers, views, shares, strict=True))

    @property
    def embed_dim(self) -> int:
        """Size of the first one's embeddings."""
        return self._members[0][0].embed_dim

    def to(self, device: torch.device) -> Self:
        for teacher, _, _ in self._members:
            teacher.to(device)
        return self

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Taught:
        said = [Taught(**vars(teacher(view(images_BCHW), tokens_BT)), share=share) for teacher, view, share in self._members]
        return replace(said[0], others=tuple(said[1:]))


def teacher_of(models: Sequence[LoadedModel], shares: Sequence[float], scale: float | None) -> FrozenTeacher | Ensemble | None:
    """One model as a teacher, several as an ensemble, None for none; `scale` is the similarity multiplier, None: each its own."""
    teachers = [FrozenTeacher(loaded.model, scale) for loaded in models]
    if len(teachers) <= 1:
        return teachers[0] if teachers else None
    return Ensemble(teachers, [View.of(loaded, models[0]) for loaded in models], shares)
