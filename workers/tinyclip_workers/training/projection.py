"""The projection from the student's embedding space into the teacher's, if their sizes differ, trained with the student.

It serves the objective only: it is part of checkpoints, is kept at the prune step, starts anew in every stage, and is never part
of the student. Shapes: B batch, D student and E teacher embedding size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tinyclip_workers.model.precision import without_autocast
from tinyclip_workers.model.towers import normalized


class Projection(nn.Module):
    """One linear map for images and one for texts, with bias, as in CLIP-KD's published code (arXiv 2307.12732).

    That code applies them to raw embeddings, this one to normalised ones, which every student provides.
    """

    def __init__(self, embed_dim: int, teacher_embed_dim: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # other random draws must not depend on the objective
            torch.manual_seed(seed)
            self.image = nn.Linear(embed_dim, teacher_embed_dim)
            self.text = nn.Linear(embed_dim, teacher_embed_dim)

    def forward(self, image_BD: Tensor, text_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_BE and text_BE, L2-normalised, in fp32 under autocast, too."""
        with without_autocast(image_BD):
            return normalized(self.image(image_BD)), normalized(self.text(text_BD))


class WithProjection(nn.Module):
    """Towers that also return their embeddings in the teacher's space, as one module for a data-parallel wrapper."""

    def __init__(self, towers: nn.Module, projection: Projection) -> None:
        super().__init__()
        self.towers, self.projection = towers, projection

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return image_BD, text_BD, the similarity multiplier, image_BE and text_BE."""
        image_BD, text_BD, scale = self.towers(*inputs)
        return image_BD, text_BD, scale, *self.projection(image_BD, text_BD)
