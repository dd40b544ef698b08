"""What a student costs as a function of the units of its towers: the constraint of masks with a target in units of cost.

Any cost is given as a function of a layout. Costs of layouts that differ in one block determine what each part of a tower costs,
so that masks and plans count exactly what the function counts, and no formula is written twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from tinyclip.schemas.spec import PruneTarget

from tinyclip_workers.costs.sizes import sizes_of
from tinyclip_workers.costs.terms import Tower, count_terms
from tinyclip_workers.model.sparsity import PerChannel, TowerCost, kept_in
from tinyclip_workers.model.summary import image_macs, summarize, text_macs

LayoutCost = Callable[[Layout], float]

TOLERANCE = 1e-6
"""Largest relative difference between a cost and the sum over its parts."""
ROUNDING = 1e-13
"""A part below this share of a tower's cost is a rounding error."""


class UnusableTarget(ValueError):
    """A target whose cost cannot be calculated."""


@dataclass(frozen=True)
class StudentCost:
    """The cost of a student that masks cut out of a model."""

    towers: dict[Tower, TowerCost]
    """For each tower with masks, the cost of all that depends on them."""
    constant: float
    """The cost of everything else."""

    @property
    def full(self) -> float:
        """The cost of the student that keeps everything."""
        return self.constant + sum(cost.prunable for cost in self.towers.values())

    @property
    def least(self) -> float:
        """The cost of the student whose towers keep one channel each, and nothing else."""
        return self.constant + sum(cost.least for cost in self.towers.values())

    def sparsity(self, target: float) -> float:
        """Return the share that masks remove of all that they can, for a student of a given cost."""
        return (self.full - target) / (self.full - self.constant)


def target_cost(target: PruneTarget, layout: Layout, towers: Sequence[Tower]) -> StudentCost:
    """Return the cost that a target limits, of students that masks cut out of some towers of a model.

    Raises UnusableTarget if it is a latency without coefficients, or with those of other terms.
    """
    if target.bytes is None:
        return student_cost(layout_cost(target), layout, towers)
    found = student_cost(layout_cost(target), layout, towers)
    # The header of the file is not a sum over parts. It is a small constant, and shorter for fewer tensors.
    rest = sizes_of(layout).bytes[target.weights] - found.full
    return StudentCost(found.towers, found.constant + rest)


def layout_cost(target: PruneTarget) -> LayoutCost:
    """Return the function of layouts that a target limits; of bytes, without the header of the file. Raises UnusableTarget."""
    if target.latency_ms is not None:
        return _latency(target.coefficients, target.tower, target.batch)
    if target.bytes is not None:
        return lambda layout: _numbers_bytes(layout, target.weights)
    return _params if target.params is not None else lambda layout: image_macs(layout) + text_macs(layout)


def student_cost(cost: LayoutCost, layout: Layout, towers: Sequence[Tower]) -> StudentCost:
    """Return the parts of a cost that masks of some towers can remove. Raises ValueError if it is not a sum over parts."""
    parts = {tower: _tower_cost(cost, layout, tower) for tower in towers}
    full = cost(layout)
    found = StudentCost(parts, full - sum(part.prunable for part in parts.values()))
    for tower in towers:
        sizes = _sizes(layout, tower)
        fewer = max(1, 3 * sizes[0] // 4), [heads // 2 for heads in sizes[1]], [units // 2 for units in sizes[2]]
        expected = full - parts[tower].prunable + parts[tower].cost(kept_in(*fewer))
        if abs(expected - cost(_changed(layout, tower, *fewer))) > TOLERANCE * full:
            raise ValueError("the cost is not a sum over channels, heads, MLP units and blocks")
    return found


def _tower_cost(cost: LayoutCost, layout: Layout, tower: Tower) -> TowerCost:
    """Derive the cost of a tower's parts: all are linear in the channels, so that two widths determine them."""
    width, heads, units = _sizes(layout, tower)
    narrow, wide = max(1, width // 2), max(2, width)
    values = [_parts(cost, layout, tower, channels) for channels in (narrow, wide)]
    scale = max(abs(value) for value in values[1])

    def linear(part: int) -> PerChannel:
        slope = (values[1][part] - values[0][part]) / (wide - narrow)
        fixed = values[0][part] - slope * narrow
        return PerChannel(*(0.0 if abs(value) <= ROUNDING * scale else value for value in (fixed, slope)))

    _, head, unit, attention, mlp, block = (linear(part) for part in range(6))
    channel = (values[1][0] - values[0][0]) / (wide - narrow)
    return TowerCost(width, tuple(heads), tuple(units), head, unit, channel, attention, mlp, block)


def _parts(cost: LayoutCost, layout: Layout, tower: Tower, channels: int) -> tuple[float, float, float, float, float, float]:
    """Return the cost of a tower of a width without heads and units, and then of what is added to it.

    That is a head, an MLP unit, the attention, the MLP and the block that it takes to have any.
    """
    _, heads, units = _sizes(layout, tower)
    most_heads, most_units, others = max(2, *heads), max(2, *units), [0] * (len(heads) - 1)

    def of(heads: int, units: int) -> float:
        return cost(_changed(layout, tower, channels, [heads, *others], [units, *others]))

    empty, one_head, one_unit = of(0, 0), of(1, 0), of(0, 1)
    head = (of(most_heads, 0) - one_head) / (most_heads - 1)
    unit = (of(0, most_units) - one_unit) / (most_units - 1)
    with_attention, with_mlp = one_head - empty - head, one_unit - empty - unit
    with_both = of(1, 1) - empty - head - unit
    return empty, head, unit, with_both - with_mlp, with_both - with_attention, with_attention + with_mlp - with_both


def _sizes(layout: Layout, tower: Tower) -> tuple[int, list[int], list[int]]:
    sizes: ImageLayout | TextLayout = layout.image if tower == "image" else layout.text
    return sizes.width, sizes.heads or [], sizes.mlp or []


def _changed(layout: Layout, tower: Tower, width: int, heads: list[int], mlp: list[int]) -> Layout:
    sizes: ImageLayout | TextLayout = layout.image if tower == "image" else layout.text
    return layout.model_copy(update={tower: sizes.model_copy(update={"width": width, "heads": heads, "mlp": mlp})})


def _params(layout: Layout) -> float:
    summary = summarize(layout)
    return summary.image_params + summary.text_params


def _numbers_bytes(layout: Layout, weights: str) -> float:
    if weights == "fp32":
        return 4 * _params(layout)
    in_int8 = layout.vocab_size * layout.text.width if weights == "int8" else 0
    return 2 * _params(layout) - in_int8


def _latency(coefficients: Mapping[str, float] | None, tower: Tower, batch: int) -> LayoutCost:
    if coefficients is None:
        raise UnusableTarget(
            "no coefficients predict this latency; a search fits them on the hardware that serves, or give target.coefficients"
        )

    def predict(layout: Layout) -> float:
        # Blocks of different sizes are computed by our own towers, and the width of the student is any number.
        terms = count_terms(layout, tower, batch, library=False, any_width=True)
        if unknown := sorted(coefficients.keys() - terms.keys()):
            raise UnusableTarget(f"the tower has no terms {', '.join(unknown)}; it has {', '.join(terms)}")
        return sum(terms[name] * coefficient for name, coefficient in coefficients.items())

    return predict
