"""Nested embeddings: the objective on the leading dimensions as well (Kusupati et al. 2022, Matryoshka, arXiv 2205.13147).

Student and teacher are compared on the principal axes of the teacher's embeddings: of its own coordinates, the leading ones carry
no more than the others. METHOD section 15 has the formulas, docs/decisions/0036-nested-embeddings.md the reasons.

Shapes: B local batch, D and E embedding size of student and teacher, K clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tinyclip_workers.model.towers import normalized
from tinyclip_workers.training.distributed import from_first_worker
from tinyclip_workers.training.objective.losses import leading, target_affinities
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms


@dataclass(frozen=True)
class Nesting:
    """The nested sizes of a student's embeddings."""

    sizes: Sequence[int] = ()
    """Increasing; the last one is the whole embedding. Empty: the objective is computed on whole embeddings only."""
    axes_EE: Tensor | None = None
    """Principal axes of the teacher's embeddings in columns, orthonormal; `None` without a teacher of the student's size."""


def nested_terms(weights: Mapping[str, float], batch: EmbeddedBatch, nesting: Nesting) -> dict[str, Tensor]:
    """Compute the terms of an objective as means over the nested sizes; raises ValueError as `objective_terms`."""
    if not nesting.sizes:
        return objective_terms(weights, batch)
    if weights.get("affinity", 0) > 0 and batch.teachers:
        batch = replace(batch, affinities=target_affinities(batch.teachers, batch.student.image_BD.dtype))
    whole = batch if nesting.axes_EE is None else _on_axes(batch, nesting.axes_EE)
    by_size = [objective_terms(weights, _leading(whole, size, number)) for number, size in enumerate(nesting.sizes)]
    return {name: torch.stack([terms[name] for terms in by_size]).mean() for name in by_size[0]}


@torch.no_grad()
def principal_axes(parts: Iterable[Tensor]) -> Tensor:
    """Return the principal axes of embeddings (B, E) of images and texts together, as columns (E, E) in fp32. Collective.

    The mean is not subtracted, as it is part of similarities. All workers get the axes of worker 0.
    """
    unit_NE = normalized(torch.cat([part.double().cpu() for part in parts]))
    axes_EE: Tensor
    _, axes_EE = torch.linalg.eigh(unit_NE.T @ unit_NE)  # ascending
    axes_EE = axes_EE.flip(1).float().contiguous()
    return from_first_worker(axes_EE)


def _on_axes(batch: EmbeddedBatch, axes_EE: Tensor) -> EmbeddedBatch:
    """Return the batch in the coordinates of the axes; the teachers' own embeddings, for affinities, stay."""
    student, clusters_KE, first = batch.student, batch.clusters_KE, batch.teachers[0] if batch.teachers else None
    axes_EE = axes_EE.to(student.image_BD)
    return replace(
        batch,
        student=replace(student, image_BD=student.image_BD @ axes_EE, text_BD=student.text_BD @ axes_EE),
        target=None if first is None else (first.image_BE.to(axes_EE) @ axes_EE, first.text_BE.to(axes_EE) @ axes_EE),
        clusters_KE=None if clusters_KE is None else clusters_KE.to(axes_EE) @ axes_EE,
    )


def _leading(batch: EmbeddedBatch, size: int, number: int) -> EmbeddedBatch:
    """Return the leading dimensions of a batch. With a projection, the student's are mapped to all of the teacher's."""
    shorter = replace(batch, student=batch.student.leading(size, number))
    if batch.target is None:
        return shorter
    image_BE, text_BE = batch.target
    clusters_KE = None if batch.clusters_KE is None else leading(batch.clusters_KE, size)
    return replace(shorter, target=(leading(image_BE, size), leading(text_BE, size)), clusters_KE=clusters_KE)
