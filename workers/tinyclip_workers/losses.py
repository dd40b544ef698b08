"""What the student learns from: affinity mimicking and the contrastive loss, on the whole global batch.

Shapes: B local batch, W world size, N = W*B global batch, D student and E teacher embedding size.

Every worker calls these with its own B rows. Rows are local, columns are global: features are gathered *with* gradient, so the
mean of the workers' gradients (what DDP takes) is exactly the gradient of one process that holds all N rows. Without a
process group N = B. Similarities are fp32 (or finer) whatever autocast says: logits of size 50 have a step of 1/32 in fp16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

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


def normalized(x_BD: Tensor) -> Tensor:
    """Embeddings of length 1, in fp32 or finer."""
    return F.normalize(fp32(x_BD), dim=-1)


def own_columns(x_BD: Tensor) -> Tensor:
    """Where each of the local rows is among the global ones (B, int64)."""
    return torch.arange(len(x_BD), device=x_BD.device) + rank() * len(x_BD)


def gather(x_BD: Tensor) -> Tensor:
    """All workers' rows in rank order, (N, D), without gradient."""
    if world_size() == 1:
        return x_BD.detach()
    x_NDs = [torch.empty_like(x_BD, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(x_NDs, x_BD.detach().contiguous())
    return torch.cat(x_NDs)


def gather_with_gradient(x_BD: Tensor) -> Tensor:
    """All workers' rows in rank order, (N, D); each worker gets back the sum over workers of its rows' gradient."""
    if world_size() == 1:
        return x_BD
    gathered: Tensor = _Gather.apply(x_BD)  # type: ignore[no-untyped-call]
    return gathered


def world_size() -> int:
    """Workers in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This worker's place in the process group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def fp32(x: Tensor) -> Tensor:
    """In fp32, or in fp64 if that is what it is."""
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """Products of a tensor's device are computed in the types that they are given in."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        yield


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        ctx.batch = len(x_BD)
        return gather(x_BD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # all_reduce and a slice, not reduce_scatter: the same sum, and gloo has it for every type.
        grad_ND = grads[0].contiguous().clone()
        dist.all_reduce(grad_ND)
        return grad_ND[rank() * ctx.batch : (rank() + 1) * ctx.batch]
