"""Learnable masks of a tower: which channels, heads and MLP units its student keeps (METHOD section 3).

Every unit has a log-odds `loga`. In training a mask is drawn from the hard concrete distribution (Louizos et al. 2018), so
that units are exactly 0 or exactly 1 with some probability and gradients reach loga in between; at the prune step the mask is
deterministic. Masks have one vector per layer, so that a tower which was pruned before has masks on its remaining units only.

Shapes: d width of the residual stream, H_l heads and m_l MLP units of layer l.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tinyclip_workers.model.transfer import to_device

BETA = 2 / 3
STRETCH_FROM, STRETCH_TO = -0.1, 1.1
EPS = 1e-6
SHARPNESS = 0.8
"""The reference's constant in deterministic masks: sigmoid(loga / BETA * SHARPNESS)."""
LOGA_AT_START = 10.0
LAMBDA_AT_START = 10.0
LOGA_FLOOR, LOGA_CEILING = math.log(0.01), math.log(100)

Tower = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")

Group = Literal["hidden", "heads", "intermediate"]
GROUPS: tuple[Group, ...] = ("hidden", "heads", "intermediate")

Granularity = Literal["paper", "exact"]
"""How a unit at the ends of the clamp counts. `paper`: as 4.7 % at the floor and 99.8 % at the ceiling, so that of 12 heads at
the floor one is kept, of 3072 MLP units 145, and of 3072 at the ceiling 6 are lost. `exact`: as 0 and 1."""


@dataclass(frozen=True)
class Mask:
    """Factors in [0, 1]: hidden (d,), heads (H_l,) and intermediate (m_l,) of each layer. A unit of factor 0 is removed."""

    hidden: Tensor
    heads: tuple[Tensor, ...]
    intermediate: tuple[Tensor, ...]

    def rows(self, group: Group) -> tuple[Tensor, ...]:
        """Return the vectors of a group, one per layer (a single one for `hidden`)."""
        return {"hidden": (self.hidden,), "heads": self.heads, "intermediate": self.intermediate}[group]

    def leaves(self) -> tuple[Tensor, ...]:
        """Return all vectors: hidden, those of heads, those of intermediate."""
        return (self.hidden, *self.heads, *self.intermediate)

    def to(self, device: torch.device) -> "Mask":
        """Return the mask on a device."""
        hidden, *rest = (vector.to(device) for vector in self.leaves())
        return Mask(hidden, tuple(rest[: len(self.heads)]), tuple(rest[len(self.heads) :]))

    def binary(self) -> "Mask":
        """Return the mask that keeps the same units with factor 1."""
        hidden, *rest = ((vector.detach() != 0).to(vector.dtype) for vector in self.leaves())
        return Mask(hidden, tuple(rest[: len(self.heads)]), tuple(rest[len(self.heads) :]))

    def kept_channels(self) -> Tensor:
        """Return 1 for every kept channel, else 0, (d,), without gradient: LayerNorm uses no more of a mask."""
        return (self.hidden.detach() != 0).to(self.hidden.dtype)


class TowerMasks(nn.Module):
    """The log-odds of one tower's units and the multipliers of its sparsity constraint.

    Parameters: `hidden` (d,), `heads` (sum of H_l,), `intermediate` (sum of m_l,), `lambda_1` and `lambda_2` (scalars).
    Optimise the log-odds downhill and the lambdas uphill (torch: `maximize=True`), and call `clamp_` after every step.
    """

    def __init__(self, width: int, heads: Sequence[int], intermediate: Sequence[int], granularity: Granularity = "exact") -> None:
        super().__init__()
        self.granularity = granularity
        self.sizes: dict[Group, list[int]] = {"hidden": [width], "heads": [*heads], "intermediate": [*intermediate]}
        self.hidden = nn.Parameter(torch.full((width,), LOGA_AT_START))
        self.heads = nn.Parameter(torch.full((sum(heads),), LOGA_AT_START))
        self.intermediate = nn.Parameter(torch.full((sum(intermediate),), LOGA_AT_START))
        self.lambda_1 = nn.Parameter(torch.tensor(LAMBDA_AT_START))
        self.lambda_2 = nn.Parameter(torch.tensor(LAMBDA_AT_START))

    def loga(self) -> dict[Group, nn.Parameter]:
        """Return the log-odds of every group, in the order in which noise is drawn."""
        return {"hidden": self.hidden, "heads": self.heads, "intermediate": self.intermediate}

    def noise(self, generator: torch.Generator | None = None) -> dict[Group, Tensor]:
        """Draw uniform numbers in (EPS, 1 - EPS), one per unit, group after group on the generator's device."""
        device = generator.device if generator is not None else self.hidden.device
        draws: dict[Group, Tensor] = {}
        for group, loga in self.loga().items():
            u = torch.empty(loga.shape, device=device).uniform_(EPS, 1 - EPS, generator=generator)
            draws[group] = to_device(u, loga.device)
        return draws

    def sample(self, noise: dict[Group, Tensor]) -> Mask:
        """Return one training mask: `hard_concrete` of every log-odds. Differentiable; one sample per forward pass."""
        return self._mask({group: hard_concrete(loga, noise[group]) for group, loga in self.loga().items()})

    @torch.no_grad()
    def deterministic(self, offset: float = 0.0, zeroed: bool = True) -> Mask:
        """Return the mask of evaluation and of the prune step; with `zeroed=False` nothing is set to 0.

        `offset` is added to the log-odds that determine how many units are kept, not to those of their order and factors.
        """
        soft = self._mask({group: soft_mask(loga) for group, loga in self.loga().items()})
        if not zeroed:
            return soft
        scores = self.scores(offset)
        rows = {group: tuple(map(_zero_smallest, soft.rows(group), scores.rows(group))) for group in GROUPS}
        # A tower needs a channel: the largest one is kept, however small.
        hidden = rows["hidden"][0] if rows["hidden"][0].any() else _zero_smallest(soft.hidden, _only_one(soft.hidden))
        return Mask(hidden, rows["heads"], rows["intermediate"])

    def scores(self, offset: float = 0.0) -> Mask:
        """Return each unit's probability of being kept, as the granularity counts it; differentiable.

        `offset` is added to the log-odds.
        """
        counted = score if self.granularity == "paper" else score_within_clamp
        return self._mask({group: counted(loga + offset) for group, loga in self.loga().items()})

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep log-odds between ln 0.01 and ln 100, where gradients still move them."""
        for loga in self.loga().values():
            loga.clamp_(LOGA_FLOOR, LOGA_CEILING)

    def _mask(self, flat: dict[Group, Tensor]) -> Mask:
        rows = {group: flat[group].split(self.sizes[group]) for group in GROUPS}
        return Mask(rows["hidden"][0], tuple(rows["heads"]), tuple(rows["intermediate"]))


def hard_concrete(loga: Tensor, u: Tensor) -> Tensor:
    """Return a stretched and clamped binary concrete sample for uniform noise `u`, of loga's shape."""
    concrete = torch.sigmoid((torch.log(u) - torch.log(1 - u) + loga) / BETA)
    return (concrete * (STRETCH_TO - STRETCH_FROM) + STRETCH_FROM).clamp(0, 1)


def soft_mask(loga: Tensor) -> Tensor:
    """Return the factor that a kept unit has in evaluation and in the fold."""
    return torch.sigmoid(loga / BETA * SHARPNESS)


def score(loga: Tensor) -> Tensor:
    """Return P(z > 0) of the hard concrete distribution."""
    return 1 - torch.sigmoid(BETA * math.log(-STRETCH_FROM / STRETCH_TO) - loga).clamp(EPS, 1 - EPS)


def score_within_clamp(loga: Tensor) -> Tensor:
    """Return `score` stretched so that it is 0 at the clamp's floor and 1 at its ceiling (and a little more above)."""
    floor, ceiling = (score(torch.tensor(end, dtype=torch.float64)).item() for end in (LOGA_FLOOR, LOGA_CEILING))
    return (score(loga) - floor) / (ceiling - floor)


def _only_one(soft: Tensor) -> Tensor:
    return torch.full_like(soft, 1 / len(soft))


def _zero_smallest(soft: Tensor, scores: Tensor) -> Tensor:
    """Set as many of the smallest to 0 as are expected to be (half to even); of equal ones the later are kept."""
    zeros = max(0, round(len(soft) - scores.sum().item()))
    kept = soft.clone()
    kept[torch.argsort(soft, stable=True)[:zeros]] = 0
    return kept
