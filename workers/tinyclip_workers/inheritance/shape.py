"""Which units a student of a given total cost keeps, without a search: those of largest importance per unit of cost."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.sparsity import TowerCost, kept_by, kept_in


def masks_of_size(scores: Mapping[Tower, Mask], costs: Mapping[Tower, TowerCost], sparsity: float) -> dict[Tower, Mask]:
    """Return masks that remove at least `sparsity` of all that can be removed, and hardly a unit more.

    `scores` are from `unit_importance`, `costs` of the unpruned towers. One threshold on the score per unit of cost holds for all
    groups, layers and towers, so that they trade cost with each other; a tower keeps at least its most important channel.
    What a block costs beside its units is saved only if it loses all of them, so that it has no part in the threshold.
    """
    values = {tower: _per_cost(mask.to(torch.device("cpu")), costs[tower]) for tower, mask in scores.items()}
    allowed = (1 - sparsity) * sum(cost.prunable for cost in costs.values())
    thresholds = torch.cat([vector for mask in values.values() for vector in mask.leaves()]).unique()  # ascending
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) // 2
        if _cost(_above(values, thresholds[middle]), costs) <= allowed:
            high = middle
        else:
            low = middle + 1
    return _above(values, thresholds[min(low, len(thresholds) - 1)])


def _per_cost(scores: Mask, cost: TowerCost) -> Mask:
    """Divide each unit's score by what it costs in the tower as it is; units that cost nothing are kept."""
    counts = [[len(row) for row in rows] for rows in (scores.heads, scores.intermediate)]
    channel, head, unit = cost.marginal(kept_in(len(scores.hidden), *counts))
    return Mask(
        _divided(scores.hidden, channel),
        tuple(_divided(row, head) for row in scores.heads),
        tuple(_divided(row, unit) for row in scores.intermediate),
    )


def _divided(scores: Tensor, cost: float) -> Tensor:
    return scores / cost if cost > 0 else torch.full_like(scores, torch.inf)


def _above(values: Mapping[Tower, Mask], threshold: Tensor) -> dict[Tower, Mask]:
    masks: dict[Tower, Mask] = {}
    for tower, mask in values.items():
        hidden = (mask.hidden >= torch.minimum(threshold, mask.hidden.max())).float()
        heads, units = ([(row >= threshold).float() for row in rows] for rows in (mask.heads, mask.intermediate))
        masks[tower] = Mask(hidden, tuple(heads), tuple(units))
    return masks


def _cost(masks: Mapping[Tower, Mask], costs: Mapping[Tower, TowerCost]) -> float:
    return sum(costs[tower].cost(kept_by(mask)) for tower, mask in masks.items())
