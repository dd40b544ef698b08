"""Layouts to fit a cost model on: students of a teacher's family, between its own sizes and the smallest.

They come in pairs of a uniform and a pruned one. Depths, widths and overall sizes are spread evenly (a Halton sequence), so that
any first part of the sequence covers the family too; sizes of layers are random.
"""

import random

from scipy.stats import qmc
from tinyclip.schemas.layouts import ImageLayout, Layout, PoolLayout, TextLayout

from tinyclip_workers.costs.terms import Tower

SMALLEST = 0.15
"""The smallest width and MLP width, as a share of the teacher's."""
SPREAD = 1.7
"""Sizes of a pruned layer are up to this factor from the layout's own, either way."""
NO_BRANCH = 0.04
"""How often a pruned layer has no attention, and how often no MLP."""
MIN_WIDTH, MIN_UNITS = 16, 8
_DIMENSIONS = 5
_ATTEMPTS = 8
"""Points for each layout: small families have few different ones."""


def sample_layouts(largest: Layout, towers: set[Tower], count: int, seed: int) -> list[Layout]:
    """Return layouts no larger than `largest`, the same ones first for any count; a tower that is not in `towers` is minimal.

    All are different; fewer than `count` if the family has not as many.
    """
    points = qmc.Halton(_DIMENSIONS, seed=seed).random(_ATTEMPTS * count)
    layouts: dict[str, Layout] = {}
    for number, point in enumerate(points):
        layout = _layout(largest, towers, tuple(map(float, point)), number, seed)
        layouts.setdefault(layout.model_dump_json(), layout)
        if len(layouts) == count:
            break
    return list(layouts.values())


def _layout(largest: Layout, towers: set[Tower], point: tuple[float, ...], number: int, seed: int) -> Layout:
    depth, scale, text_depth, text_scale, ratio = point
    uniform, generator = number % 2 == 0, random.Random(f"{seed} {number}")
    image, text = largest.image, largest.text
    if "image" not in towers:
        image = _minimal_image(image)
    elif image.kind == "resnet":
        image = _resnet(image, depth, scale, uniform, generator)
    else:
        image = _transformer_image(image, depth, scale, ratio, uniform, generator)
    if "text" not in towers:
        text = _minimal_text(text)
    else:
        text = _transformer_text(text, text_depth, text_scale, ratio, uniform, generator)
    return largest.model_copy(update={"image": image, "text": text})


def _transformer_image(
    largest: ImageLayout, depth: float, scale: float, ratio: float, uniform: bool, generator: random.Random
) -> ImageLayout:
    assert largest.heads is not None
    assert largest.mlp is not None
    blocks = _blocks(largest.width, largest.head_width, largest.heads, largest.mlp, depth, scale, ratio, uniform, generator)
    width, heads, mlp = blocks
    pool = largest.pool
    if pool is not None:
        pool = PoolLayout(width=pool.width, heads=min(pool.heads, max(1, max(heads))), mlp=min(pool.mlp, max(1, max(mlp))))
    return largest.model_copy(update={"width": width, "layers": [len(heads)], "heads": heads, "mlp": mlp, "pool": pool})


def _transformer_text(
    largest: TextLayout, depth: float, scale: float, ratio: float, uniform: bool, generator: random.Random
) -> TextLayout:
    blocks = _blocks(largest.width, largest.head_width, largest.heads, largest.mlp, depth, scale, ratio, uniform, generator)
    width, heads, mlp = blocks
    return largest.model_copy(update={"width": width, "layers": len(heads), "heads": heads, "mlp": mlp})


def _blocks(
    largest_width: int, head_width: int, largest_heads: list[int], largest_mlp: list[int], depth: float, scale: float,
    ratio: float, uniform: bool, generator: random.Random,
) -> tuple[int, list[int], list[int]]:  # fmt: skip
    """Return width, heads and MLP units. `depth`, `scale` and `ratio` are from 0 to 1, for the smallest to the largest."""
    layers = 1 + min(len(largest_heads) - 1, int(depth * len(largest_heads)))
    most_heads, most_units = max(1, *largest_heads), max(MIN_UNITS, *largest_mlp)
    share = SMALLEST + (1 - SMALLEST) * scale
    if uniform:
        heads = _within(1, share * largest_width / head_width, max(1, largest_width // head_width))
        width = heads * head_width
        units = _within(MIN_UNITS, width * (1 + ratio * max(0.0, most_units / largest_width - 1)), most_units)
        return width, [heads] * layers, [units] * layers
    width = _within(MIN_WIDTH, share * largest_width * generator.uniform(0.8, 1.25), largest_width)

    def size(least: int, most: int) -> int:
        if generator.random() < NO_BRANCH and layers > 1:
            return 0
        return _within(least, share * most * SPREAD ** generator.uniform(-1.5, 1), most)

    return width, [size(1, most_heads) for _ in range(layers)], [size(MIN_UNITS, most_units) for _ in range(layers)]


def _resnet(largest: ImageLayout, depth: float, scale: float, shallow: bool, generator: random.Random) -> ImageLayout:
    """Half of the layouts have the fewest bottlenecks, as the students that are fastest."""
    step = next(step for step in range(2, 2 * largest.head_width + 1, 2) if step * 32 % largest.head_width == 0)
    share = SMALLEST + (1 - SMALLEST) * scale
    width = step * _within(1, share * largest.width / step, max(1, largest.width // step))
    layers = [1 if shallow else _within(1, 1 + depth * generator.uniform(0, 2) * (most - 1), most) for most in largest.layers]
    return largest.model_copy(update={"width": width, "layers": layers})


def _minimal_image(largest: ImageLayout) -> ImageLayout:
    if largest.kind == "resnet":
        return _resnet(largest, 0, 0, True, random.Random(0))
    units, pool = largest.head_width, largest.pool
    if pool is not None:
        pool = PoolLayout(width=units, heads=1, mlp=units)
    return largest.model_copy(update={"width": units, "layers": [1], "heads": [1], "mlp": [units], "pool": pool})


def _minimal_text(largest: TextLayout) -> TextLayout:
    width = largest.head_width
    return largest.model_copy(update={"width": width, "layers": 1, "heads": [1], "mlp": [width]})


def _within(least: int, value: float, most: int) -> int:
    return max(least, min(most, round(value)))
