"""The two losses of the method: affinity mimicking and the contrastive loss, on the whole global batch.

Shapes: B local batch, W world size, N = W*B global batch, D student and E teacher embedding size.

Every worker calls these with its own B rows. Rows are local, columns are global: features are gathered *with* gradient, so the
mean of the workers' gradients (what DDP takes) is exactly the gradient of one process that holds all N rows. Without a
process group N = B. Similarities are fp32 (or finer) under autocast, too: logits of size 50 have a step of 1/32 in fp16.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.model.precision import fp32, without_autocast
from tinyclip_workers.model.towers import normalized
from tinyclip_workers.training.distributed import gather, gather_with_gradient, rank

Scale = Tensor | float
"""A similarity multiplier (inverse temperature): exp of a model's `logit_scale` parameter, not the parameter itself."""


@dataclass(frozen=True)
class StudentEmbeddings:
    """The student's embeddings of a local batch, L2-normalised, and its similarity multiplier."""

    image_BD: Tensor
    text_BD: Tensor
    scale: Scale
    bias: Scale = 0.0
    """Added to similarities in sigmoid losses."""
    image_BE: Tensor | None = None
    """Projected into the teacher's space, where the embedding sizes differ; L2-normalised. With nested sizes (B, S, E)."""
    text_BE: Tensor | None = None

    def in_teacher_space(self) -> tuple[Tensor, Tensor]:
        """Return the image and text embeddings to compare with a teacher's: the projected ones, if there are any."""
        if self.image_BE is None or self.text_BE is None:
            return self.image_BD, self.text_BD
        return self.image_BE, self.text_BE

    def leading(self, size: int, number: int) -> "StudentEmbeddings":
        """Return the leading dimensions, normalised again; `number` is that of the size among the projection's."""
        shorter = replace(self, image_BD=leading(self.image_BD, size), text_BD=leading(self.text_BD, size))
        if self.image_BE is None or self.text_BE is None:
            return shorter
        return replace(shorter, image_BE=self.image_BE[:, number], text_BE=self.text_BE[:, number])


@dataclass(frozen=True)
class SigmoidScale:
    """The similarity multiplier and the bias of a model that was trained with the sigmoid loss: its own, whatever the spec's."""

    scale: Scale
    bias: Scale


@dataclass(frozen=True)
class TeacherEmbeddings:
    """A teacher's embeddings of a local batch, L2-normalised, and its similarity multiplier."""

    image_BE: Tensor
    text_BE: Tensor
    scale: Scale
    weight: float = 1.0
    """Share in the mean of several teachers' affinities; shares add up to 1."""
    sigmoid: SigmoidScale | None = None
    """None for a teacher that was trained with a softmax loss."""


def leading(x_BD: Tensor, size: int) -> Tensor:
    """Return the leading dimensions of embeddings, normalised again."""
    return normalized(x_BD[..., :size])


Affinities = tuple[Tensor, Tensor]
"""Image-to-text and text-to-image affinities (B, N), whose rows add up to 1."""


def affinity_loss(
    student: StudentEmbeddings, teachers: Sequence[TeacherEmbeddings], targets: Affinities | None = None
) -> tuple[Tensor, Tensor]:
    """Compare the student's image-text affinities with the teachers' (Wu et al. 2023, TinyCLIP, equations 1-3).

    The target is the weighted mean of the teachers' softmax affinities, each at the teacher's own scale. Embedding sizes may
    differ, as only N x N similarities are compared. `targets` are the teachers' `target_affinities`, if they are known already.
    Returns the image-to-text and the text-to-image cross-entropy, each a mean over the B local rows (scalars, fp32).
    They are not KL divergences: the teacher's entropy, a constant, is included.
    """
    image_BD, text_BD = fp32(student.image_BD), fp32(student.text_BD)
    with without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        image_target_BN, text_target_BN = targets or target_affinities(teachers, image_BD.dtype)
        image_to_text = F.cross_entropy(student.scale * image_BD @ text_ND.T, image_target_BN)
        text_to_image = F.cross_entropy(student.scale * text_BD @ image_ND.T, text_target_BN)
    return image_to_text, text_to_image


@torch.no_grad()
def target_affinities(teachers: Sequence[TeacherEmbeddings], dtype: torch.dtype) -> Affinities:
    """Return the weighted mean of the teachers' affinities. Collective."""
    image_target_BN, text_target_BN = _affinities(teachers[0], dtype)
    if len(teachers) == 1:
        return image_target_BN, text_target_BN
    image_target_BN, text_target_BN = teachers[0].weight * image_target_BN, teachers[0].weight * text_target_BN
    for teacher in teachers[1:]:
        image_BN, text_BN = _affinities(teacher, dtype)
        image_target_BN, text_target_BN = image_target_BN + teacher.weight * image_BN, text_target_BN + teacher.weight * text_BN
    return image_target_BN, text_target_BN


def _affinities(teacher: TeacherEmbeddings, dtype: torch.dtype) -> Affinities:
    image_BE, text_BE = teacher.image_BE.to(dtype), teacher.text_BE.to(dtype)
    image_to_text_BN = (teacher.scale * image_BE @ gather(text_BE).T).softmax(dim=1)
    text_to_image_BN = (teacher.scale * text_BE @ gather(image_BE).T).softmax(dim=1)
    return image_to_text_BN, text_to_image_BN


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, logit_scale: Scale) -> Tensor:
    """Compute the symmetric InfoNCE of images and their texts among all N (Radford et al. 2021, CLIP)."""
    image_BD, text_BD = fp32(image_BD), fp32(text_BD)
    with without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        own_B = own_columns(image_BD)
        image_to_text = F.cross_entropy(logit_scale * image_BD @ text_ND.T, own_B)
        text_to_image = F.cross_entropy(logit_scale * text_BD @ image_ND.T, own_B)
    return (image_to_text + text_to_image) / 2


def own_columns(x_BD: Tensor) -> Tensor:
    """Return the global column of each local row (B, int64)."""
    return torch.arange(len(x_BD), device=x_BD.device) + rank() * len(x_BD)
