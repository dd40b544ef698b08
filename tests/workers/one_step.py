"""One training step without a trainer, and a tiny masked student with a batch to take it on."""

from collections.abc import Callable, Mapping, Sequence

import torch
from tinyclip_workers.model.masked import MaskedTowers, Noise
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms, weighted_sum
from tinyclip_workers.training.teachers.frozen import teachers_forward
from tinyclip_workers.training.teachers.inputs import ModelInput
from torch import Tensor, nn

from tests.workers.layouts import Config, layout_of

CONFIG: Config = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2},
}
ROWS = 12


def masked_student() -> MaskedTowers:
    """Make a student in double precision with random weights, under masks of both towers."""
    torch.manual_seed(0)
    clip = Clip(layout_of(CONFIG))
    for parameter in clip.parameters():
        nn.init.normal_(parameter, std=0.2)
    nn.init.constant_(clip.logit_scale, 3.0)
    return MaskedTowers(clip, layout_of(CONFIG), ("image", "text"), Constraint(0.0, 0.5, 0)).double()


def noise_of(towers: MaskedTowers) -> Noise:
    draws = towers.noise(torch.Generator().manual_seed(3))
    return {tower: {group: u.double() for group, u in groups.items()} for tower, groups in draws.items()}


def global_batch() -> tuple[Tensor, Tensor]:
    """Return ROWS images and texts for `masked_student`."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 38, (ROWS, 8), generator=generator)
    tokens[:, 5] = 39
    return torch.randn(ROWS, 3, 16, 16, generator=generator, dtype=torch.float64), tokens


def rows_of(rank: int, workers: int) -> slice:
    """Return the rows of the global batch that a worker has."""
    share = ROWS // workers
    return slice(rank * share, (rank + 1) * share)


def accumulate_gradients(
    towers: nn.Module,
    teachers: Sequence[Callable[[Tensor, Tensor], TeacherEmbeddings]],
    batch: tuple[Tensor, Tensor],
    objective: Mapping[str, float],
    *,
    noise: Noise | None = None,
    penalty: Tensor | None = None,
    micro_batch: int | None = None,
    clusters_KE: Tensor | None = None,
    teacher_inputs: Sequence[ModelInput] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Do what `StageTrainer.train_step` does up to the optimizer; returns the loss and the objective's terms.

    `teacher_inputs`: None if the teachers read the batch as the student does.
    """
    theirs = teacher_inputs or [ModelInput(*batch) for _ in teachers]
    cache = GradientCache(towers, micro_batch=micro_batch)
    embedded = teachers_forward(teachers, theirs, micro_batch=micro_batch)
    student = StudentEmbeddings(*cache.forward(*batch, noise))
    terms = objective_terms(objective, EmbeddedBatch(student, embedded, clusters_KE))
    return cache.backward(weighted_sum(objective, terms), penalty), terms
