"""Sizes of students: shares of the teacher's towers and blocks, the layouts that they give, and sizes of a given cost."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, PruneSpec, TextTower

from tinyclip_workers.model.layouts import image_layout, text_layout
from tinyclip_workers.plan.prune import estimated_layout

SMALLEST = 0.01
"""The smallest share of a tower's weights."""
WHOLE = 0.995
"""Shares above are not worth a cut."""
CLEARLY = 0.93
"""The largest share of a student's tower that is cut out of it: its real size differs a little from what was planned."""
Tower = Literal["image", "text"]


@dataclass(frozen=True)
class Shape:
    """How a size is distributed: between towers, and between depth and width."""

    balance: float = 0.0
    """Of the image tower: its share is 2^balance times as large, the text tower's as much smaller."""
    image_depth: float = 1.0
    """Share of the blocks that are kept."""
    text_depth: float = 1.0

    def neighbours(self, towers: frozenset[str]) -> list["Shape"]:
        """Return shapes that differ in one respect, those that promise most first."""
        moves = []
        if len(towers) == 2:
            moves += [(0.5, 1.0, 1.0), (-0.5, 1.0, 1.0)]
        moves += [(0.0, 2 / 3, 1.0)] * ("image" in towers) + [(0.0, 1.0, 2 / 3)] * ("text" in towers)
        moves += [(0.0, 3 / 2, 1.0)] * ("image" in towers) + [(0.0, 1.0, 3 / 2)] * ("text" in towers)
        moved = [
            Shape(self.balance + balance, round(self.image_depth * image, 6), round(self.text_depth * text, 6))
            for balance, image, text in moves
        ]
        return [shape for shape in moved if abs(shape.balance) <= 2 and max(shape.image_depth, shape.text_depth) <= 1]


@dataclass(frozen=True)
class Size:
    """The shares of the teacher's weights in attention and MLPs (or a ResNet's convolutions), and its blocks, that are kept."""

    image: float
    text: float
    image_layers: tuple[int, ...]
    text_layers: int

    @classmethod
    def of(cls, shape: Shape, scale: float, teacher: Layout, towers: frozenset[str]) -> "Size":
        """Return the size of a shape; towers whose costs nothing limits stay whole."""
        image_layers, text_layers = tuple(teacher.image.layers), teacher.text.layers
        image = text = 1.0
        balance = shape.balance if len(towers) == 2 else 0.0
        if "image" in towers:
            image_layers = tuple(max(1, round(blocks * shape.image_depth)) for blocks in image_layers)
            image = min(_most(sum(image_layers), sum(teacher.image.layers)), max(SMALLEST, scale * 2**balance))
        if "text" in towers:
            text_layers = max(1, round(text_layers * shape.text_depth))
            text = min(_most(text_layers, teacher.text.layers), max(SMALLEST, scale * 2**-balance))
        return cls(round(image, 4), round(text, 4), image_layers, text_layers)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Size":
        return cls(**{**data, "image_layers": tuple(data["image_layers"])})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "image_layers": list(self.image_layers)}

    def fits_into(self, other: "Size") -> bool:
        """Return whether this student can be cut out of the other one: each tower is the same or clearly smaller.

        Blocks are removed from whole towers only: those of a tower that was cut differ, and are not compared.
        """
        same = [
            (self.image, self.image_layers) == (other.image, other.image_layers),
            (self.text, self.text_layers) == (other.text, other.text_layers),
        ]
        blocks = all(own <= others for own, others in zip(self.image_layers, other.image_layers, strict=True))
        smaller = [
            self.image < other.image * CLEARLY and blocks and (other.image >= 1 or self.image_layers == other.image_layers),
            self.text < other.text * CLEARLY and (
                self.text_layers == other.text_layers or (other.text >= 1 and self.text_layers < other.text_layers)
            ),
        ]  # fmt: skip
        return not all(same) and all(map(max, same, smaller))

    def layout(self, teacher: Layout) -> Layout:
        """Return the layout, of an automatic stage an estimate: evenly thinned."""
        if teacher.image.kind == "resnet":
            return _manual_layout(self, teacher)
        thinned = teacher
        towers: tuple[Tower, ...] = ("image", "text")
        for tower in towers:
            thinned = _thinned(thinned, tower, self)
        return thinned


def largest_scale(cost: Callable[[float], float], limit: float) -> float | None:
    """Return the largest scale whose cost is within the limit; None if that of the smallest is not. Costs grow with the scale."""
    if cost(1.0) <= limit:
        return 1.0
    if cost(SMALLEST) > limit:
        return None
    low, high = math.log(SMALLEST), 0.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(math.exp(middle)) <= limit else (low, middle)
    return math.exp(low)


def manual_towers(size: Size, teacher: Layout) -> tuple[ImageTower, TextTower]:
    """Return the uniform towers of a student with a ResNet: width and depth only."""
    image, text = teacher.image, teacher.text
    step = math.lcm(2, image.head_width // math.gcd(32, image.head_width))
    image_share = min(1.0, size.image * sum(image.layers) / sum(size.image_layers))
    text_share = min(1.0, size.text * text.layers / size.text_layers)
    layers = (size.image_layers[0], size.image_layers[1], size.image_layers[2], size.image_layers[3])
    return (
        ImageTower(layers=layers, width=_multiple(image.width * math.sqrt(image_share), step, image.width)),
        TextTower(layers=size.text_layers, width=_multiple(text.width * math.sqrt(text_share), text.head_width, text.width)),
    )


def _most(blocks: int, of: int) -> float:
    """Return the largest share of a tower with fewer blocks: a cut of blocks is one of units too."""
    return 1.0 if blocks == of else 0.97 * blocks / of


def _multiple(value: float, step: int, most: int) -> int:
    return min(most, max(step, round(value / step) * step))


def _manual_layout(size: Size, teacher: Layout) -> Layout:
    image, text = manual_towers(size, teacher)
    return teacher.model_copy(
        update={"image": image_layout(image, teacher.image), "text": text_layout(text, teacher.text)}
    )


def _thinned(layout: Layout, tower: Tower, size: Size) -> Layout:
    """Keep the blocks of one tower, then thin them so that the tower has its share."""
    whole = layout.image if tower == "image" else layout.text
    before = sum(whole.layers) if isinstance(whole.layers, list) else whole.layers
    blocks = sum(size.image_layers) if tower == "image" else size.text_layers
    share = (size.image if tower == "image" else size.text) * before / blocks
    kept = whole.model_copy(update={
        "layers": [blocks] if tower == "image" else blocks,
        "heads": (whole.heads or [])[:blocks], "mlp": (whole.mlp or [])[:blocks],
    })  # fmt: skip
    shallow = layout.model_copy(update={tower: kept})
    if share >= WHOLE:
        return shallow
    return estimated_layout(PruneSpec(target_sparsity=1 - share, towers=[tower]), shallow, shallow)
