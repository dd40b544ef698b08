"""What the student learns from: affinity mimicking and the contrastive loss, on the whole global batch.

Shapes: B local batch, W world size, N = W*B global batch, D student and E teacher embedding size.

Every worker calls these with its own B rows. Rows are local, columns are global: features are gathered *with* gradient, so the
mean of the workers' gradients (what DDP takes) is exactly the gradient of one process that holds all N rows. Without a
process group N = B. Similarities are fp32 (or finer) whatever autocast says: logits of size 50 have a step of 1/32 in fp16.
"""

from collections.abc import Iterator, Mapping
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
    image_BD, text_BD = _fp32(image_BD), _fp32(text_BD)
    teacher_image_BE, teacher_text_BE = teacher_image_BE.to(image_BD.dtype), teacher_text_BE.to(image_BD.dtype)
    with _without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        with torch.no_grad():
            teacher_i2t_BN = teacher_logit_scale * teacher_image_BE @ gather(teacher_text_BE).T
            teacher_t2i_BN = teacher_logit_scale * teacher_text_BE @ gather(teacher_image_BE).T
        image_to_text = F.cross_entropy(logit_scale * image_BD @ text_ND.T, teacher_i2t_BN.softmax(dim=1))
        text_to_image = F.cross_entropy(logit_scale * text_BD @ image_ND.T, teacher_t2i_BN.softmax(dim=1))
    return image_to_text, text_to_image


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, logit_scale: Scale) -> Tensor:
    """Symmetric InfoNCE: each picture finds its own text among all N, and each text its picture (Radford et al. 2021, CLIP)."""
    image_BD, text_BD = _fp32(image_BD), _fp32(text_BD)
    with _without_autocast(image_BD):
        image_ND, text_ND = gather_with_gradient(image_BD), gather_with_gradient(text_BD)
        own_B = torch.arange(len(image_BD), device=image_BD.device) + rank() * len(image_BD)
        image_to_text = F.cross_entropy(logit_scale * image_BD @ text_ND.T, own_B)
        text_to_image = F.cross_entropy(logit_scale * text_BD @ image_ND.T, own_B)
    return (image_to_text + text_to_image) / 2


def normalized(x_BD: Tensor) -> Tensor:
    """Embeddings of length 1, in fp32 or finer."""
    return F.normalize(_fp32(x_BD), dim=-1)


def objective_terms(weights: Mapping[str, float], student: Embeddings, teacher: Embeddings | None) -> dict[str, Tensor]:
    """The named terms of positive weight, unweighted: `affinity` (mean of both directions) and `contrastive`.

    Raises ValueError when `affinity` is asked for without a teacher.
    """
    terms: dict[str, Tensor] = {}
    if weights.get("affinity", 0.0) > 0:
        if teacher is None:
            raise ValueError("objective.affinity is positive but there is no teacher; set it to 0 or name a teacher")
        both = affinity_loss(student.image_BD, student.text_BD, student.scale, teacher.image_BD, teacher.text_BD, teacher.scale)
        terms["affinity"] = (both[0] + both[1]) / 2
    if weights.get("contrastive", 0.0) > 0:
        terms["contrastive"] = contrastive_loss(student.image_BD, student.text_BD, student.scale)
    return terms


def weighted_sum(weights: Mapping[str, float], terms: Mapping[str, Tensor]) -> Tensor:
    """The number that is minimised (scalar)."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


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


def _fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def _without_autocast(x: Tensor) -> Iterator[None]:
    with torch.autocast(device_type=x.device.type, enabled=False):
        yield
