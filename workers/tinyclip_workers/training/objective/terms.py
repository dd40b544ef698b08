"""The objective, a weighted sum of named terms: affinity mimicking and CLIP's own loss (`losses.py`), other published ones here.

Shapes: B local batch, W world size, N = W*B global batch, D student and E teacher embedding size, K clusters.

As in `losses.py`, rows are local and columns global, gathered with gradient: the mean of the workers' gradients is that of one
process with all N rows. The terms here compare a student's embeddings with a teacher's, both in the teacher's space (E), with a
learned projection of the student's if sizes differ (`projection.py`). Scales are similarity multipliers. The published codes of
CLIP-KD and CLIP-RD have one learned parameter per term for this, used without its exponential; here it is the student's own
scale, `temperature.student`, whose meaning does not depend on the chosen terms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from tinyclip.schemas.spec.stages import TEACHER_TERMS
from torch import Tensor

from tinyclip_workers.model.precision import fp32, without_autocast
from tinyclip_workers.training.distributed import gather, gather_with_gradient
from tinyclip_workers.training.objective.losses import (
    Affinities,
    Scale,
    StudentEmbeddings,
    TeacherEmbeddings,
    affinity_loss,
    contrastive_loss,
    own_columns,
)
from tinyclip_workers.training.objective.sigmoid import sigmoid_affinity_loss, sigmoid_contrastive_loss

FEATURE_MIMICRY_SCALE = 2000 / 512
"""The weight in CLIP-KD and the embedding size of its models."""

P = ParamSpec("P")


def in_fp32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Convert tensors to fp32 (or to the finer type of the first) and switch autocast off."""

    @wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        dtype = fp32(tensors[0]).dtype

        def fine(x: Any) -> Any:
            return x.to(dtype) if isinstance(x, Tensor) else x

        with without_autocast(tensors[0]):
            return loss(*map(fine, args), **{name: fine(x) for name, x in kwargs.items()})

    return computed


@in_fp32
def feature_mimicry_loss(image_BE: Tensor, text_BE: Tensor, teacher_image_BE: Tensor, teacher_text_BE: Tensor) -> Tensor:
    """Compute the squared distance to the teacher's embeddings (Yang et al. 2024, CLIP-KD, arXiv 2307.12732).

    Embeddings are L2-normalised. The paper has the mean over all B*E numbers and weight 2000, at E = 512. This is
    FEATURE_MIMICRY_SCALE times the distance, a mean over rows, added for images and texts: weight 1 means the same for any E, and
    is comparable with the other terms.
    """
    distances = [(image_BE - teacher_image_BE).square().sum(1), (text_BE - teacher_text_BE).square().sum(1)]
    return FEATURE_MIMICRY_SCALE * torch.stack(distances, dim=1).sum(1).mean()


@in_fp32
def inheritance_loss(image_BE: Tensor, text_BE: Tensor, teacher_image_BE: Tensor, teacher_text_BE: Tensor) -> Tensor:
    """Compute 1 - cosine between the first halves of the student's and the teacher's dimensions (Huang et al. 2021, IE-KD).

    IE-KD (arXiv 2107.00181) divides a student's features into a part that inherits the teacher's and a part that explores. Its
    published code divides channels in the middle, offers this cosine form beside a distance, and takes the mean over rows. Chosen
    here: the features are final embeddings, compared with the same half of the teacher's instead of through auto-encoders (where
    sizes differ, `projection.py` maps the student's first); images and texts are added. Between 0 and 4.
    """
    pairs = (image_BE, teacher_image_BE), (text_BE, teacher_text_BE)
    return torch.stack([1 - F.cosine_similarity(_halves(own)[0], _halves(theirs)[0]).mean() for own, theirs in pairs]).sum()


@in_fp32
def exploration_loss(image_BE: Tensor, text_BE: Tensor, teacher_image_BE: Tensor, teacher_text_BE: Tensor) -> Tensor:
    """Compute the absolute cosine between the second halves: features unlike the teacher's are orthogonal to them (IE-KD).

    As in the published code (arXiv 2107.00181) the opposite of a feature is as similar to it as the feature. Otherwise as in
    `inheritance_loss`. Between 0 and 2.
    """
    pairs = (image_BE, teacher_image_BE), (text_BE, teacher_text_BE)
    return torch.stack([F.cosine_similarity(_halves(own)[1], _halves(theirs)[1]).abs().mean() for own, theirs in pairs]).sum()


@in_fp32
def interactive_contrastive_loss(
    image_BE: Tensor, text_BE: Tensor, logit_scale: Scale, teacher_image_BE: Tensor, teacher_text_BE: Tensor
) -> Tensor:
    """Compute InfoNCE across the models: student images to teacher texts, student texts to teacher images (CLIP-KD).

    Embeddings are L2-normalised. As in the published code (arXiv 2307.12732) it is the mean of both directions.
    """
    image_to_text = F.cross_entropy(logit_scale * image_BE @ gather(teacher_text_BE).T, own_columns(image_BE))
    text_to_image = F.cross_entropy(logit_scale * text_BE @ gather(teacher_image_BE).T, own_columns(text_BE))
    return (image_to_text + text_to_image) / 2


@in_fp32
def vertical_relational_loss(
    image_BE: Tensor, text_BE: Tensor, logit_scale: Scale, teacher_image_BE: Tensor, teacher_text_BE: Tensor
) -> Tensor:
    """Compute VRD: image-image similarities to the teacher match text-text similarities (Chung et al. 2026, CLIP-RD).

    As in the published code (arXiv 2603.25383): similarities within a modality between student and teacher, in both directions
    (student rows against teacher columns, and the reverse); the KL divergence of the images' distributions from the texts',
    whose gradient is stopped; and, with the same weight, InfoNCE of each modality, without which a constant would be optimal.
    Directions are averaged; divergence, images' and texts' InfoNCE are added.
    """
    images = _both_directions(image_BE, teacher_image_BE, logit_scale)
    texts = _both_directions(text_BE, teacher_text_BE, logit_scale)
    own_B = own_columns(image_BE)
    divergences = [_divergence(image_BN, of=text_BN) for image_BN, text_BN in zip(images, texts, strict=True)]
    contrasts = [F.cross_entropy(logits_BN, own_B) for logits_BN in (*images, *texts)]
    return torch.stack([*divergences, *contrasts]).sum() / 2


@in_fp32
def cross_relational_loss(
    image_BE: Tensor, text_BE: Tensor, logit_scale: Scale, teacher_image_BE: Tensor, teacher_text_BE: Tensor
) -> Tensor:
    """Compute XRD: image-text similarities to the teacher match text-image similarities (CLIP-RD, arXiv 2603.25383).

    As in the published code: of the similarities across models and modalities, student image to teacher text is paired with
    student text to teacher image, and the reverse directions (teacher rows, student columns) likewise; the KL divergence of one
    of a pair from the other, whose gradient is stopped, for each of the four; their mean.
    """
    image_text = _both_directions(image_BE, teacher_text_BE, logit_scale)
    text_image = _both_directions(text_BE, teacher_image_BE, logit_scale)
    pairs = list(zip(image_text, text_image, strict=True))
    return torch.stack([_divergence(one, of=other) + _divergence(other, of=one) for one, other in pairs]).sum() / 4


@in_fp32
def cluster_instance_loss(
    image_BE: Tensor,
    text_BE: Tensor,
    logit_scale: Scale,
    teacher_image_BE: Tensor,
    teacher_text_BE: Tensor,
    clusters_KE: Tensor,
) -> Tensor:
    """Classify student images by the cluster of the teacher's image (Yang et al. 2024, CLIP-CID, arXiv 2408.09441).

    `clusters_KE` are L2-normalised k-means centres of the teacher's image embeddings, fixed (`clusters.py`). The paper's code is
    not public. Chosen here: an image's label is the centre nearest to the teacher's embedding of the augmented image; the
    cross-entropy is over all K centres at the student's scale; instance discrimination, which the paper uses for alignment across
    modalities, is the interactive contrastive loss; both have the same weight.
    """
    label_B = (teacher_image_BE @ clusters_KE.T).argmax(dim=1)
    cluster = F.cross_entropy(logit_scale * image_BE @ clusters_KE.T, label_B)
    return cluster + interactive_contrastive_loss(image_BE, text_BE, logit_scale, teacher_image_BE, teacher_text_BE)


@dataclass(frozen=True)
class EmbeddedBatch:
    """A local batch as encoded by student and teachers, with the clusters that one term needs."""

    student: StudentEmbeddings
    teachers: Sequence[TeacherEmbeddings] = ()
    clusters_KE: Tensor | None = None
    affinities: Affinities | None = None
    """The teachers', if they are computed already."""
    target: tuple[Tensor, Tensor] | None = None
    """The first teacher's image and text embeddings in other coordinates than its own, in which the student's are."""

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The student's image and text embeddings in the teacher's space."""
        return self.student.in_teacher_space()

    @property
    def teacher_pair(self) -> tuple[Tensor, Tensor]:
        """The first teacher's image and text embeddings: all terms but affinities use only this teacher."""
        return self.target or (self.teachers[0].image_BE, self.teachers[0].text_BE)

    @property
    def centroids_KE(self) -> Tensor:
        if self.clusters_KE is None:
            raise ValueError("objective.cluster_instance is positive but has no clusters; name their file in objective.clusters")
        return self.clusters_KE


def _affinity(batch: EmbeddedBatch) -> Tensor:
    image_to_text, text_to_image = affinity_loss(batch.student, batch.teachers, batch.affinities)
    return (image_to_text + text_to_image) / 2


TERMS: dict[str, Callable[[EmbeddedBatch], Tensor]] = {
    "affinity": _affinity,
    "sigmoid_affinity": lambda batch: sigmoid_affinity_loss(batch.student, batch.teachers),
    "sigmoid_contrastive": lambda batch: sigmoid_contrastive_loss(batch.student),
    "contrastive": lambda batch: contrastive_loss(batch.student.image_BD, batch.student.text_BD, batch.student.scale),
    "feature_mimicry": lambda batch: feature_mimicry_loss(*batch.pair, *batch.teacher_pair),
    "inheritance": lambda batch: inheritance_loss(*batch.pair, *batch.teacher_pair),
    "exploration": lambda batch: exploration_loss(*batch.pair, *batch.teacher_pair),
    "interactive_contrastive": lambda batch: interactive_contrastive_loss(*batch.pair, batch.student.scale, *batch.teacher_pair),
    "vertical_relational": lambda batch: vertical_relational_loss(*batch.pair, batch.student.scale, *batch.teacher_pair),
    "cross_relational": lambda batch: cross_relational_loss(*batch.pair, batch.student.scale, *batch.teacher_pair),
    "cluster_instance": lambda batch: cluster_instance_loss(
        *batch.pair, batch.student.scale, *batch.teacher_pair, batch.centroids_KE
    ),
}


def objective_terms(weights: Mapping[str, float], batch: EmbeddedBatch) -> dict[str, Tensor]:
    """Compute the named terms of positive weight, unweighted (scalars).

    Raises ValueError for a term that lacks its teacher or its clusters.
    """
    names = [name for name, weight in weights.items() if weight > 0]
    for name in names:
        if not batch.teachers and name in TEACHER_TERMS:
            raise ValueError(f"objective.{name} is positive but there is no teacher; set it to 0 or name a teacher")
    return {name: TERMS[name](batch) for name in names}


def weighted_sum(weights: Mapping[str, float], terms: Mapping[str, Tensor]) -> Tensor:
    """Return the number to minimise (scalar)."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _halves(x_BE: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second half of the dimensions."""
    half = x_BE.shape[1] // 2
    return x_BE[:, :half], x_BE[:, half:]


def _both_directions(x_BE: Tensor, teacher_BE: Tensor, logit_scale: Scale) -> tuple[Tensor, Tensor]:
    """Return similarities (B, N): student rows with all teacher columns, teacher rows with all student columns."""
    return logit_scale * x_BE @ gather(teacher_BE).T, logit_scale * teacher_BE @ gather_with_gradient(x_BE).T


def _divergence(logits_BN: Tensor, *, of: Tensor) -> Tensor:
    """Return KL(softmax of `of` || softmax of logits), a mean over rows, without gradient to `of`."""
    return F.kl_div(logits_BN.log_softmax(dim=1), of.detach().log_softmax(dim=1), log_target=True, reduction="batchmean")
