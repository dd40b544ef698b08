"""The losses of the sigmoid family (SigLIP): every pair of an image and a text is judged by itself, matching or not.

Shapes: B local batch, N global batch, D student and E teacher embedding size. Rows are local images, columns all texts, gathered
with gradient, so that the mean of the workers' gradients is that of one process, as in `losses.py`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.model.precision import fp32, without_autocast
from tinyclip_workers.training.distributed import gather, gather_with_gradient
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings, own_columns


def sigmoid_contrastive_loss(student: StudentEmbeddings) -> Tensor:
    """Compute the sigmoid loss of images and their texts among all N (Zhai et al. 2023, SigLIP, arXiv 2303.15343).

    The sum over texts, a mean over images (scalar, fp32).
    """
    logits_BN = _logits(student)
    matches_BN = F.one_hot(own_columns(logits_BN), logits_BN.shape[1]).to(logits_BN)
    return _cross_entropy(logits_BN, matches_BN)


def sigmoid_affinity_loss(student: StudentEmbeddings, teachers: Sequence[TeacherEmbeddings]) -> Tensor:
    """Compare the probabilities of all pairs with those of sigmoid teachers (Udandarao et al. 2024, ACED, arXiv 2411.18674).

    The target is the weighted mean of the teachers' probabilities, each at its own scale and bias; embedding sizes may differ.
    The sum over texts, a mean over images (scalar, fp32); the teachers' entropy, a constant, is included. Teachers without a bias
    take no part. Raises ValueError if no teacher has one.
    """
    judging = [teacher for teacher in teachers if teacher.sigmoid is not None]
    if not judging:
        raise ValueError("objective.sigmoid_affinity needs a teacher with a logit bias, as SigLIP's; use affinity for others")
    logits_BN = _logits(student)
    return _cross_entropy(logits_BN, _target_probabilities(judging, logits_BN.dtype))


def _logits(student: StudentEmbeddings) -> Tensor:
    image_BD, text_BD = fp32(student.image_BD), fp32(student.text_BD)
    with without_autocast(image_BD):
        logits_BN: Tensor = student.scale * image_BD @ gather_with_gradient(text_BD).T + student.bias
    return logits_BN


@torch.no_grad()
def _target_probabilities(teachers: Sequence[TeacherEmbeddings], dtype: torch.dtype) -> Tensor:
    total, parts = sum(teacher.weight for teacher in teachers), []
    for teacher in teachers:
        assert teacher.sigmoid is not None
        image_BE, text_BE = teacher.image_BE.to(dtype), teacher.text_BE.to(dtype)
        with without_autocast(image_BE):
            logits_BN = teacher.sigmoid.scale * image_BE @ gather(text_BE).T + teacher.sigmoid.bias
        parts.append(teacher.weight / total * logits_BN.sigmoid())
    return torch.stack(parts).sum(0)


def _cross_entropy(logits_BN: Tensor, target_BN: Tensor) -> Tensor:
    with without_autocast(logits_BN):
        return F.binary_cross_entropy_with_logits(logits_BN, target_BN, reduction="sum") / len(logits_BN)
