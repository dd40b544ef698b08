"""Learnable masks of a tower: which channels, heads and MLP units its student keeps (METHOD section 3).

Every unit has a log-odds `loga`. In training a mask is drawn from the hard concrete distribution (Louizos et al. 2018), so
that units are exactly 0 or exactly 1 with some probability and gradients reach loga in between; at the prune step the mask is
deterministic. Masks have one vector per layer, so a tower that was pruned before has only its living units masked again.

Shapes: d width of the residual stream, H_l heads and m_l MLP units of layer l.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BETA = 2 / 3
STRETCH_FROM, STRETCH_TO = -0.1, 1.1
EPS = 1e-6
SHARPNESS = 0.8
"""The reference's "magic number": deterministic masks are sigmoid(loga / BETA * SHARPNESS)."""
LOGA_AT_START = 10.0
LAMBDA_AT_START = 10.0
LOGA_FLOOR, LOGA_CEILING = math.log(0.01), math.log(100)

Group = Literal["hidden", "heads", "intermediate"]
GROUPS: tuple[Group, ...] = ("hidden", "heads", "intermediate")

Granularity = Literal["paper", "exact"]
"""How a unit at the ends of the clamp counts. `paper`: at the floor still 4.7 %, at the top 99.8 %, so that of 12 heads at the
floor one is kept, of 3072 MLP units 145, and of 3072 at the top 6 are lost. `exact`: not at all, and whole."""


@dataclass(frozen=True)
class Mask:
    """Factors in [0, 1]: hidden (d,), heads (H_l,) and intermediate (m_l,) of each layer. A unit of factor 0 is gone."""

    hidden: Tensor
    heads: tuple[Tensor, ...]
    intermediate: tuple[Tensor, ...]

    def rows(self, group: Group) -> tuple[Tensor, ...]:
        """The vectors of a group, one per layer (of `hidden`, the one)."""
        return {"hidden": (self.hidden,), "heads": self.heads, "intermediate": self.intermediate}[group]

    def kept_channels(self) -> Tensor:
        """1 for every channel that is kept, else 0, (d,), without gradient: all that LayerNorm sees of a mask."""
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
        """The log-odds of every group, in the order in which noise is drawn."""
        return {"hidden": self.hidden, "heads": self.heads, "intermediate": self.intermediate}

    def noise(self, generator: torch.Generator | None = None) -> dict[Group, Tensor]:
        """Uniform numbers in (EPS, 1 - EPS), one per unit, drawn group after group on the generator's device."""
        device = generator.device if generator is not None else self.hidden.device
        draws: dict[Group, Tensor] = {}
        for group, loga in self.loga().items():
            u = torch.empty(loga.shape, device=device).uniform_(EPS, 1 - EPS, generator=generator)
            draws[group] = u.to(loga.device)
        return draws

    def sample(self, noise: dict[Group, Tensor]) -> Mask:
        """One training mask: `hard_concrete` of every log-odds. Differentiable; one sample serves a whole forward pass."""
        return self._mask({group: hard_concrete(loga, noise[group]) for group, loga in self.loga().items()})

    @torch.no_grad()
    def deterministic(self, offset: float = 0.0, zeroed: bool = True) -> Mask:
        """The mask of evaluation and of the prune step; with `zeroed=False` nothing is set to 0.

        `offset` is added to the log-odds where it is counted how many units stay, not in the order or the factors of these.
        """
        soft = self._mask({group: soft_mask(loga) for group, loga in self.loga().items()})
        if not zeroed:
            return soft
        scores = self.scores(offset)
        rows = {group: tuple(map(_zero_smallest, soft.rows(group), scores.rows(group))) for group in GROUPS}
        # A tower without channels is none: the last one stays, however small.
        hidden = rows["hidden"][0] if rows["hidden"][0].any() else _zero_smallest(soft.hidden, _only_one(soft.hidden))
        return Mask(hidden, rows["heads"], rows["intermediate"])

    def scores(self, offset: float = 0.0) -> Mask:
        """P of every unit of being kept, its log-odds moved by `offset`, as the granularity counts it; differentiable."""
        counted = score if self.granularity == "paper" else score_within_clamp
        return self._mask({group: counted(loga + offset) for group, loga in self.loga().items()})

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keeps log-odds between ln 0.01 and ln 100, where gradients still move them."""
        for loga in self.loga().values():
            loga.clamp_(LOGA_FLOOR, LOGA_CEILING)

    def _mask(self, flat: dict[Group, Tensor]) -> Mask:
        rows = {group: flat[group].split(self.sizes[group]) for group in GROUPS}
        return Mask(rows["hidden"][0], tuple(rows["heads"]), tuple(rows["intermediate"]))


def hard_concrete(loga: Tensor, u: Tensor) -> Tensor:
    """A stretched and clamped binary concrete sample for uniform noise `u`, of loga's shape."""
    concrete = torch.sigmoid((torch.log(u) - torch.log(1 - u) + loga) / BETA)
    return (concrete * (STRETCH_TO - STRETCH_FROM) + STRETCH_FROM).clamp(0, 1)


def soft_mask(loga: Tensor) -> Tensor:
    """The factor that a kept unit has in evaluation and is folded with."""
    return torch.sigmoid(loga / BETA * SHARPNESS)


def score(loga: Tensor) -> Tensor:
    """P(z > 0) of the hard concrete distribution."""
    return 1 - torch.sigmoid(BETA * math.log(-STRETCH_FROM / STRETCH_TO) - loga).clamp(EPS, 1 - EPS)


def score_within_clamp(loga: Tensor) -> Tensor:
    """`score`, stretched so that it is 0 at the clamp's floor and 1 at its ceiling (and a little more above)."""
    floor, ceiling = (score(torch.tensor(end, dtype=torch.float64)).item() for end in (LOGA_FLOOR, LOGA_CEILING))
    return (score(loga) - floor) / (ceiling - floor)


def _only_one(soft: Tensor) -> Tensor:
    return torch.full_like(soft, 1 / len(soft))


def _zero_smallest(soft: Tensor, scores: Tensor) -> Tensor:
    """As many of the smallest become 0 as are expected to be (half to even); of equal ones the later are kept."""
    zeros = max(0, round(len(soft) - scores.sum().item()))
    kept = soft.clone()
    kept[torch.argsort(soft, stable=True)[:zeros]] = 0
    return kept
