"""The frozen teachers of a stage, a list of one or more: each receives images and texts in the form that it was trained on.

Shapes: B local batch, T tokens, E teacher embedding size.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from tinyclip.artifacts.documents import StoredTeacher
from torch import Tensor

from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.precision import FP32, Precision
from tinyclip_workers.model.towers import Model, TwoTowers, encode_tokens, normalized
from tinyclip_workers.training.gradient_cache import micro_batches
from tinyclip_workers.training.objective.losses import SigmoidScale, TeacherEmbeddings
from tinyclip_workers.training.teachers.inputs import AS_STUDENT, ModelInput, Reading


class FrozenTeacher:
    """An original teacher: evaluation mode, no gradient, its own or a fixed temperature."""

    def __init__(
        self,
        model: Model,
        scale: float | None,
        *,
        reading: Reading = AS_STUDENT,
        embed_dim: int | None = None,
        weight: float = 1.0,
    ) -> None:
        """`scale` is the similarity multiplier, `None` for the model's own. `embed_dim` (E) is required for a library's model."""
        self.towers = TwoTowers(model).eval().requires_grad_(False)
        self.embed_dim = int(model.text_projection.shape[-1]) if embed_dim is None else embed_dim
        self.reading, self.weight = reading, weight
        self._scale = scale
        self.is_sigmoid = getattr(model, "logit_bias", None) is not None

    def to(self, device: torch.device) -> Self:
        """Move the weights to a device."""
        self.towers.to(device)
        if device.type == "cuda":  # the format of the images: else convolutions would convert their weights every time
            self.towers.clip.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> TeacherEmbeddings:
        """Encode pairs in the teacher's own form (`ModelInput`)."""
        image_BE, text_BE, own_scale, bias = self.towers(images_BCHW, tokens_BT)
        sigmoid = SigmoidScale(own_scale, bias) if self.is_sigmoid else None
        scale = own_scale if self._scale is None else self._scale
        return TeacherEmbeddings(image_BE, text_BE, scale, self.weight, sigmoid)

    def encode_images(self, images_BCHW: Tensor) -> Tensor:
        """Return embeddings of images (B, E), as they are in pairs."""
        return normalized(self.towers.clip.encode_image(images_BCHW))

    def encode_texts(self, tokens_BT: Tensor) -> Tensor:
        """Return embeddings of texts (B, E), as they are in pairs; tokens are trimmed already."""
        return normalized(encode_tokens(self.towers.clip, tokens_BT))


def freeze_teachers(
    models: Sequence[LoadedModel],
    weights: Sequence[float],
    scale: float | None,
    student: LoadedModel,
    languages: Sequence[str | None] | None = None,
) -> list[FrozenTeacher]:
    """Make teachers of loaded models; `scale` is their similarity multiplier, `None` for each one's own.

    `student`: what it reads is not made again for a teacher that reads the same. `languages`: those of the captions that the
    teachers read; None: that of the student's.
    """
    return [
        FrozenTeacher(
            loaded.model, scale, reading=Reading.of(loaded, student, language), embed_dim=loaded.layout.embed_dim, weight=weight
        )
        for loaded, weight, language in zip(models, weights, languages or [None] * len(models), strict=True)
    ]


def describe_teacher(model: LoadedModel, share: float) -> StoredTeacher:
    """Return what a teacher's embeddings depend on."""
    bias = getattr(model.model, "logit_bias", None)
    return StoredTeacher(
        name=model.name,
        sha256=model.digest,
        weight=share,
        scale=float(model.model.logit_scale.detach().exp()),
        bias=None if bias is None else float(bias.detach()),
        embed_dim=model.layout.embed_dim,
        image_size=model.layout.image_size,
        interpolation=model.interpolation,
        image_mean=model.image_mean,
        image_std=model.image_std,
    )


@torch.no_grad()
def teachers_forward(
    teachers: Sequence[Callable[[Tensor, Tensor], TeacherEmbeddings]],
    inputs: Sequence[ModelInput],
    precision: Precision = FP32,
    micro_batch: int | None = None,
) -> list[TeacherEmbeddings]:
    """Encode a local batch, in the form of each teacher, at most `micro_batch` pairs at once, without gradient."""
    with precision.autocast():
        return [
            _concatenate([teacher(*part) for part in micro_batches(*own, micro_batch)])
            for teacher, own in zip(teachers, inputs, strict=True)
        ]


def _concatenate(parts: Sequence[TeacherEmbeddings]) -> TeacherEmbeddings:
    if len(parts) == 1:
        return parts[0]
    images, texts = torch.cat([part.image_BE for part in parts]), torch.cat([part.text_BE for part in parts])
    return replace(parts[0], image_BE=images, text_BE=texts)
