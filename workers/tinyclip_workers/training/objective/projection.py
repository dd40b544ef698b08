"""The projection from the student's embedding space into the teacher's, if their sizes differ, trained with the student.

It serves the objective only: it is part of checkpoints, is kept at the prune step, starts anew in every stage, and is never part
of the student. Shapes: B batch, N rows to fit, D student and E teacher embedding size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.model.precision import without_autocast
from tinyclip_workers.model.towers import Model, TwoTowers, normalized
from tinyclip_workers.training.distributed import from_first_worker
from tinyclip_workers.training.objective.losses import TeacherEmbeddings, leading

Teacher = Callable[[Tensor, Tensor], TeacherEmbeddings]

RIDGE = 1e-4
"""Of the fit, relative to the mean square of the student's embeddings in a direction."""


class Projection(nn.Module):
    """One linear map for images and one for texts, with bias, as in CLIP-KD's published code (arXiv 2307.12732).

    That code applies them to raw embeddings, this one to normalised ones, which every student provides. They are random
    until `fit` sets them.
    """

    def __init__(self, embed_dim: int, teacher_embed_dim: int, seed: int, sizes: Sequence[int] = ()) -> None:
        """`sizes`: nested sizes of the student's embeddings, whose leading dimensions go through the maps' leading columns."""
        super().__init__()
        self.sizes = tuple(sizes)
        with torch.random.fork_rng(devices=[]):  # other random draws must not depend on the objective
            torch.manual_seed(seed)
            self.image = nn.Linear(embed_dim, teacher_embed_dim)
            self.text = nn.Linear(embed_dim, teacher_embed_dim)

    def forward(self, image_BD: Tensor, text_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return image_BE and text_BE, L2-normalised, in fp32 under autocast, too; with nested sizes (B, S, E)."""
        with without_autocast(image_BD):
            return self._mapped(self.image, image_BD), self._mapped(self.text, text_BD)

    def _mapped(self, linear: nn.Linear, x_BD: Tensor) -> Tensor:
        if not self.sizes:
            return normalized(linear(x_BD))
        mapped = [F.linear(leading(x_BD, size), linear.weight[:, :size], linear.bias) for size in self.sizes]
        return normalized(torch.stack(mapped, dim=1))

    @torch.no_grad()
    def fit(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Set both maps to the one that brings a student's embeddings closest to its teacher's, by least squares.

        Both arguments are parts, (B, D) and (B, E), with images and texts in the same order; together they have N rows. Two
        random maps disagree: an objective that compares student and teacher in each modality by itself would then separate the
        student's images from its texts.
        """
        x_ND, y_NE = (torch.cat([*parts]).double().cpu() for parts in (student, teacher))
        gram_DD = x_ND.T @ x_ND
        ridge_DD = RIDGE * gram_DD.trace() / len(gram_DD) * torch.eye(len(gram_DD), dtype=torch.float64)
        weight_DE = from_first_worker(torch.linalg.solve(gram_DD + ridge_DD, x_ND.T @ y_NE))
        for linear in (self.image, self.text):
            linear.weight.copy_(weight_DE.T)
            linear.bias.zero_()


@torch.no_grad()
def fit_projection(projection: Projection, student: Model, teacher: Teacher, pairs: Pairs, teacher_pairs: Pairs) -> None:
    """Fit a projection to a student and a teacher on calibration pairs, in the form of each.

    All workers get that of worker 0. Collective.
    """
    was_training = student.training
    towers = TwoTowers(student).eval()
    own = [towers(*part)[:2] for part in pairs.parts()]
    student.train(was_training)
    wanted = [(found.image_BE, found.text_BE) for found in (teacher(*part) for part in teacher_pairs.parts())]
    projection.fit([x_BD for pair in own for x_BD in pair], [x_BE for pair in wanted for x_BE in pair])


class WithProjection(nn.Module):
    """Towers that also return their embeddings in the teacher's space, as one module for a data-parallel wrapper."""

    def __init__(self, towers: nn.Module, projection: Projection) -> None:
        super().__init__()
        self.towers, self.projection = towers, projection

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return image_BD, text_BD, the similarity multiplier, the bias, image_BE and text_BE."""
        image_BD, text_BD, scale, bias = self.towers(*inputs)
        return image_BD, text_BD, scale, bias, *self.projection(image_BD, text_BD)
