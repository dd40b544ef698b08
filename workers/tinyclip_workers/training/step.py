"""One training step, as the paper has it.

B local batch, T tokens, D student and E teacher embedding size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from tinyclip_workers.model.masked import Noise
from tinyclip_workers.model.precision import Precision, precision_of
from tinyclip_workers.model.towers import Model, encode_text, normalized
from tinyclip_workers.training.gradient_cache import backward_in_parts
from tinyclip_workers.training.losses import Embeddings, Taught
from tinyclip_workers.training.objectives import objective_terms, weighted_sum

FP32 = precision_of("fp32", torch.device("cpu"))


class Teacher(Protocol):
    @property
    def embed_dim(self) -> int: ...

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Embeddings: ...


class TwoTowers(nn.Module):
    """A CLIP model as one call, so that a data-parallel wrapper sees both towers and the logit scale."""

    def __init__(self, clip: Model) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images_BCHW: Tensor, tokens_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image_BD and text_BD, L2-normalised in fp32, and the similarity multiplier (scalar)."""
        image_BD = normalized(self.clip.encode_image(images_BCHW))
        text_BD = normalized(encode_text(self.clip, tokens_BT))
        return image_BD, text_BD, self.clip.logit_scale.exp()


class FrozenTeacher:
    """The original teacher: evaluation mode, no gradient, its own or a fixed temperature."""

    def __init__(self, clip: Model, scale: float | None) -> None:
        self.towers = TwoTowers(clip).eval().requires_grad_(False)
        self._scale = scale

    @property
    def embed_dim(self) -> int:
        """Size of its embeddings (E)."""
        return int(self.towers.clip.text_projection.shape[-1])

    def to(self, device: torch.device) -> Self:
        self.towers.to(device)
        return self

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Embeddings:
        image_BE, text_BE, own_scale = self.towers(images_BCHW, tokens_BT)
        return Embeddings(image_BE, text_BE, own_scale if self._scale is None else self._scale)


def learn(
    student: nn.Module,
    teacher: Teacher | None,
    images_BCHW: Tensor,
    tokens_BT: Tensor,
    objective: Mapping[str, float],
    *,
    noise: Noise | None = None,
    pull: Callable[[], Tensor] | None = None,
    micro_batch: int | None = None,
    precision: Precision = FP32,
    clusters_KE: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The teacher's affinities, the student's, how far they are apart, and from there the gradients of every parameter.

    With masks, `noise` draws them (once for the whole batch) and `pull` is the term for the sparsity asked for. `micro_batch`
    pairs are in memory at once; None: all. `clusters_KE` are the centres that the objective's `cluster_instance` needs.
    Returns the loss, the pull included, and the objective's terms (scalars).
    """
    parts = _parts(images_BCHW, tokens_BT, micro_batch)
    with torch.no_grad(), precision.autocast():
        taught = _joined([teacher(*part) for part in parts]) if teacher else None
    terms: dict[str, Tensor] = {}

    def loss_of(learned: Embeddings) -> Tensor:
        terms.update(objective_terms(objective, learned, taught, clusters_KE))
        return weighted_sum(objective, terms)

    masked_parts = parts if noise is None else [(*part, noise) for part in parts]
    scaled, autocast = precision.scaler.scale, precision.autocast
    loss = backward_in_parts(student, masked_parts, loss_of, besides=pull, autocast=autocast, scaled=scaled)
    return loss, terms


def _parts(images_BCHW: Tensor, tokens_BT: Tensor, size: int | None) -> list[tuple[Any, ...]]:
    if size is None or size >= len(images_BCHW):
        return [(images_BCHW, tokens_BT)]
    return list(zip(images_BCHW.split(size), tokens_BT.split(size), strict=True))


def _joined(parts: Sequence[Embeddings]) -> Embeddings:
    """What a teacher, or each of several, says of all parts."""
    first = parts[0]
    if len(parts) == 1:
        return first
    whole: dict[str, Any] = {"image_BD": torch.cat([p.image_BD for p in parts]), "text_BD": torch.cat([p.text_BD for p in parts])}
    if isinstance(first, Taught):
        said = [part.others for part in parts if isinstance(part, Taught)]
        whole["others"] = tuple(_joined(of_one) for of_one in zip(*said, strict=True))
    return replace(first, **whole)
