"""How many pictures a replica computes together: as many as pay on this machine, and no more.

Where a batch costs as much as its pictures one by one, as it does for large pictures on a CPU, gathering them only makes the
first wait for the last. Docs: docs/serving.md, "Batches".
"""

import time

import numpy as np

from tinyclip_workers.serving.engine_protocol import Engine

LEAST = 8
"""Below, what goes on around a batch counts: threads wake each other up for each, and caches are cold."""
NEARLY = 0.98
"""Of the best rate."""
TURNS = 3
"""Of each size; the least time counts."""


def batch_that_pays(engine: Engine, most: int) -> int:
    """The smallest of 8, 16, 32, … `most` pictures at which the engine gives nearly all of its rate.

    Larger ones are tried until two in a row are no faster.
    """
    rates: dict[int, float] = {}
    for size in _sizes(most):
        rates[size] = _rate(engine, size)
        if len(rates) > 2 and NEARLY * max(list(rates.values())[-2:]) < max(list(rates.values())[:-2]):
            break
    return min(size for size, rate in rates.items() if rate >= NEARLY * max(rates.values()))


def _sizes(most: int) -> list[int]:
    sizes = [LEAST]
    while sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return sorted({min(size, most) for size in sizes})


def _rate(engine: Engine, size: int) -> float:
    """Pictures a second."""
    pictures = np.zeros((size, engine.image_size, engine.image_size, 3), np.uint8)
    engine.encode_image(pictures)  # what is made at the first call of a size is not timed
    seconds = []
    for _ in range(TURNS):
        began = time.perf_counter()
        engine.encode_image(pictures)
        seconds.append(time.perf_counter() - began)
    return size / min(seconds)
