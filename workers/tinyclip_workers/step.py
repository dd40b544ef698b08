"""One training step, as the paper has it.

B local batch, T tokens, D student and E teacher embedding size.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from tinyclip_workers.losses import Embeddings, normalized, objective_terms, weighted_sum
from tinyclip_workers.towers import encode_text


class Teacher(Protocol):
    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Embeddings: ...


class TwoTowers(nn.Module):
    """A CLIP model as one call, so that a data-parallel wrapper sees both towers and the logit scale."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images_BCHW: Tensor, tokens_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image_BD and text_BD, L2-normalised in fp32, and the similarity multiplier (scalar)."""
        image_BD = normalized(self.clip.encode_image(images_BCHW))
        text_BD = normalized(encode_text(self.clip, tokens_BT))
        return image_BD, text_BD, self.clip.logit_scale.exp()


class FrozenTeacher:
    """The original teacher: evaluation mode, no gradient, its own or a fixed temperature."""

    def __init__(self, clip: CLIP, scale: float | None) -> None:
        self.towers = TwoTowers(clip).eval().requires_grad_(False)
        self._scale = scale

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Embeddings:
        image_BE, text_BE, own_scale = self.towers(images_BCHW, tokens_BT)
        return Embeddings(image_BE, text_BE, own_scale if self._scale is None else self._scale)


def training_loss(
    student: nn.Module, teacher: Teacher | None, images_BCHW: Tensor, tokens_BT: Tensor, objective: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The teacher's affinities, the student's, and how far they are apart: the weighted sum and its terms (scalars)."""
    with torch.no_grad():
        taught = teacher(images_BCHW, tokens_BT) if teacher else None
    learned = Embeddings(*student(images_BCHW, tokens_BT))
    terms = objective_terms(objective, learned, taught)
    return weighted_sum(objective, terms), terms
