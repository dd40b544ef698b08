"""What the student learns from: affinity mimicking and the contrastive loss, on the whole global batch.

Shapes: B local batch, W world size, N = W*B global batch, D student and E teacher embedding size.

Every worker calls these with its own B rows. Rows are local, columns are global: features are gathered *with* gradient, so the
mean of the workers' gradients (what DDP takes) is exactly the gradient of one process that holds all N rows. Without a
process group N = B. Similarities are fp32 (or finer) whatever autocast says: logits of size 50 have a step of 1/32 in fp16.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.model.precision import fp32, without_autocast
from tinyclip_workers.training.distributed import gather, gather_with_gradient, rank

Scale = Tensor | float
"""A similarity multiplier (inverse temperature): exp of a model's `logit_scale` parameter, not the parameter itself."""


@dataclass(frozen=True)
class Embeddings:
    """What one model says of a local batch: L2-normalised image_BD and text_BD, and its similarity multiplier."""

    image_BD: Tensor
    text_BD: Tensor
    scale: Scale
    image_BE: Tensor | None = None
    """A student's, in the teacher's space, where a projection leads there; L2-normalised."""
    text_BE: Tensor | None = None

    def in_teachers_space(self) -> tuple[Tensor, Tensor]:
        """Images and texts to be compared with a teacher's: the projected ones, or the student's own where sizes are alike."""
        if self.image_BE is None or self.text_BE is None:
            return self.image_BD, self.text_BD
        return self.image_BE, self.text_BE


@dataclass(frozen=True)
class Taught(Embeddings):
    """What several teachers say: of itself the first one's embeddings, and beside them the others'."""

    share: float = 1.0
    """In the mean of affinities; all teachers' shares add up to 1."""
    others: tuple["Taught", ...] = ()


def affinity_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Scale,
    teacher_image_BE: Tensor,
    teacher_text_BE: Tensor,
    teacher_logit_scale: Scale,
) -> tuple[Tensor, Tensor]:
    """The student's image-text affinities, pulled to the teacher's (Wu et al. 2023, TinyCLIP, equations 1-3).

    Embeddings are L2-normalised; D and E may differ, since only N x N similarities meet. Scales are multipliers.
    Returns the image-to-text and the text-to-image cross-entropy, each a mean over the B local rows (scalars, fp32).
    It is a cross-entropy, not a KL divergence: the teacher's entropy is a constant and stays in.
    """
    teacher = Embeddings(teacher_image_BE, teacher_text_BE, teacher_logit_scale)
    return affinity_of(Embeddings(image_BD, text_BD, logit_scale), teacher)


def affinity_of(student: Embeddings, teacher: Embeddings) -> tuple[Tensor, Tensor]:
    """`affinity_loss` of one teacher, or of several: then the target is the weighted mean of their softmax affinities.

    Each of several teachers has its own scale and may have its own embedding size.
    """
    image_BD, text_BD = fp32(student.image_BD), fp32(student.text_BD)
    with without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        teacher_i2t_BN, teacher_t2i_BN = _taught_affinities(teacher, image_BD.dtype)
        image_to_text = F.cross_entropy(student.scale * image_BD @ text_ND.T, teacher_i2t_BN)
        text_to_image = F.cross_entropy(student.scale * text_BD @ image_ND.T, teacher_t2i_BN)
    return image_to_text, text_to_image


@torch.no_grad()
def _taught_affinities(teacher: Embeddings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Image-to-text and text-to-image affinities (B, N), rows that add up to 1; of several teachers the weighted mean."""
    image_BE, text_BE = teacher.image_BD.to(dtype), teacher.text_BD.to(dtype)
    i2t_BN = (teacher.scale * image_BE @ gather(text_BE).T).softmax(dim=1)
    t2i_BN = (teacher.scale * text_BE @ gather(image_BE).T).softmax(dim=1)
    if not isinstance(teacher, Taught):
        return i2t_BN, t2i_BN
    i2t_BN, t2i_BN = teacher.share * i2t_BN, teacher.share * t2i_BN
    for other in teacher.others:
        other_i2t_BN, other_t2i_BN = _taught_affinities(other, dtype)
        i2t_BN, t2i_BN = i2t_BN + other_i2t_BN, t2i_BN + other_t2i_BN
    return i2t_BN, t2i_BN


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, logit_scale: Scale) -> Tensor:
    """Symmetric InfoNCE: each picture finds its own text among all N, and each text its picture (Radford et al. 2021, CLIP)."""
    image_BD, text_BD = fp32(image_BD), fp32(text_BD)
    with without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        own_B = own_columns(image_BD)
        image_to_text = F.cross_entropy(logit_scale * image_BD @ text_ND.T, own_B)
        text_to_image = F.cross_entropy(logit_scale * text_BD @ image_ND.T, own_B)
    return (image_to_text + text_to_image) / 2


def own_columns(x_BD: Tensor) -> Tensor:
    """Where each of the local rows is among the global ones (B, int64)."""
    return torch.arange(len(x_BD), device=x_BD.device) + rank() * len(x_BD)

