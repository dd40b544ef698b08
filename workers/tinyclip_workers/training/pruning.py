"""The constraint of an automatic stage's masks, and the blocks that its search starts with.

A target in units of cost depends on the spec and on the layout of the stage's parent only: the coefficients of a latency are in
the spec itself. So a job needs nothing but its spec, an attempt that resumes computes the same constraint, and the lineage of a
model version has all that its size was determined by. Coefficients are ten numbers: a file would be one more thing to keep.
"""

import math
from typing import NamedTuple

from tinyclip.schemas import Layout
from tinyclip.schemas.spec import PruneLayers, PruneSpec

from tinyclip_workers.costs.student_cost import UnusableTarget, target_cost
from tinyclip_workers.model.layouts import ImpossibleStudent
from tinyclip_workers.model.masks import TOWERS, Tower
from tinyclip_workers.model.sparsity import Constraint, TowerCost


class PruneGoal(NamedTuple):
    """The constraint of a stage's masks."""

    constraint: Constraint
    costs: dict[Tower, TowerCost] | None
    """The cost that it is about; None: parameters, relative to the original model."""


def goal_of(prune: PruneSpec, layout: Layout) -> PruneGoal:
    """Return the constraint of masks on a model's units. Raises ImpossibleStudent."""
    if prune.target is None:
        assert prune.target_sparsity is not None  # the schema requires one of the two
        return PruneGoal(Constraint(prune.start_sparsity, prune.target_sparsity, prune.sparsity_warmup), None)
    try:
        cost = target_cost(prune.target, layout, prune.towers)
    except UnusableTarget as error:
        raise ImpossibleStudent("prune.target.coefficients", prune.target.coefficients, str(error)) from error
    if prune.target.value < cost.least:
        message = f"cannot be met: the smallest is {shown_cost(cost.least)}, of towers with one channel; raise it"
        raise ImpossibleStudent(f"prune.target.{prune.target.kind}", prune.target.value, message)
    return PruneGoal(Constraint(0.0, cost.sparsity(prune.target.value), prune.sparsity_warmup), cost.towers)


def with_fewer_blocks(layout: Layout, layers: PruneLayers | None) -> Layout:
    """Return a layout whose towers have as many blocks as `layers` gives. Raises ImpossibleStudent."""
    for tower, count in () if layers is None else ((tower, getattr(layers, tower)) for tower in TOWERS):
        sizes, field = layout.image if tower == "image" else layout.text, f"prune.layers.{tower}"
        heads, mlp = sizes.heads, sizes.mlp
        if count is None or (heads is not None and count == len(heads)):
            continue
        if heads is None or mlp is None:
            message = "the image tower is a ResNet, whose blocks are selected by inherit: manual; omit it"
            raise ImpossibleStudent(field, count, message)
        if count > len(heads):
            message = f"is more than the {len(heads)} blocks of the model to inherit from; give at most {len(heads)}"
            raise ImpossibleStudent(field, count, message)
        if len(set(heads)) > 1 or len(set(mlp)) > 1:
            message = f"blocks are selected from equal ones; those of the model to inherit from differ, so give {len(heads)}"
            raise ImpossibleStudent(field, count, message)
        update = {"heads": heads[:count], "mlp": mlp[:count], "layers": [count] if tower == "image" else count}
        layout = layout.model_copy(update={tower: sizes.model_copy(update=update)})
    return layout


def shown_cost(value: float) -> str:
    """Return a cost as messages show it, no smaller than it is."""
    return f"{math.ceil(value):,}" if value >= 1000 else f"{math.ceil(value * 1000) / 1000:g}"
