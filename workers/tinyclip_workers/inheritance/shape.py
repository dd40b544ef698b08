"""Which units a student of a given total size keeps, without a search: those of largest importance per parameter."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tinyclip_workers.model.masks import GROUPS, Mask, Tower
from tinyclip_workers.model.sparsity import TowerSize


def masks_of_size(scores: Mapping[Tower, Mask], sizes: Mapping[Tower, TowerSize], sparsity: float) -> dict[Tower, Mask]:
    """Return masks that remove at least `sparsity` of all prunable parameters, and hardly a unit more.

    `scores` are from `unit_importance`, `sizes` of the unpruned towers. One threshold on the score per parameter holds for all
    groups, layers and towers, so that they trade size with each other; a tower keeps at least its most important channel.
    """
    values = {tower: _per_parameter(mask.to(torch.device("cpu")), sizes[tower]) for tower, mask in scores.items()}
    allowed = (1 - sparsity) * sum(size.prunable for size in sizes.values())
    thresholds = torch.cat([vector for mask in values.values() for vector in mask.leaves()]).unique()  # ascending
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) // 2
        if _size(_above(values, thresholds[middle]), sizes) <= allowed:
            high = middle
        else:
            low = middle + 1
    return _above(values, thresholds[min(low, len(thresholds) - 1)])


def _per_parameter(scores: Mask, size: TowerSize) -> Mask:
    """Divide each unit's score by the parameters that it costs in the tower as it is."""
    channels, heads, units = (float(sum(len(row) for row in scores.rows(group))) for group in GROUPS)
    per_head, per_unit = size.cost(channels, 1.0, 0.0), size.cost(channels, 0.0, 1.0)
    return Mask(
        scores.hidden / size.cost(1.0, heads, units),
        tuple(row / per_head for row in scores.heads),
        tuple(row / per_unit for row in scores.intermediate),
    )


def _above(values: Mapping[Tower, Mask], threshold: Tensor) -> dict[Tower, Mask]:
    masks: dict[Tower, Mask] = {}
    for tower, mask in values.items():
        hidden = (mask.hidden >= torch.minimum(threshold, mask.hidden.max())).float()
        heads, units = ([(row >= threshold).float() for row in rows] for rows in (mask.heads, mask.intermediate))
        masks[tower] = Mask(hidden, tuple(heads), tuple(units))
    return masks


def _size(masks: Mapping[Tower, Mask], sizes: Mapping[Tower, TowerSize]) -> float:
    kept = 0.0
    for tower, mask in masks.items():
        channels, heads, units = (float(torch.cat(mask.rows(group)).sum()) for group in GROUPS)
        kept += sizes[tower].cost(channels, heads, units)
    return kept
