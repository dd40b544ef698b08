"""How many pictures a replica computes together: as many as pay on this machine, and no more.

Where a batch costs as much as its pictures one by one, as it does for large pictures on a CPU, gathering them only makes the
first wait for the last. Docs: docs/serving.md, "Batches".
"""

import time

import numpy as np

from tinyclip_workers.engines.protocol import Engine

LEAST = 8
"""Below, what goes on around a batch counts: threads wake each other up for each, and caches are cold."""
NEARLY = 0.98
"""A smaller batch with so much of a larger one's rate is preferred."""
TURNS = 3
"""Of each size; the least time counts."""


def batch_that_pays(engine: Engine, most: int) -> int:
    """As many as `LEAST`, doubled up to `most` pictures for as long as the engine gives clearly more of them a second."""
    size = min(LEAST, most)
    rate = _rate(engine, size)
    while size < most:
        larger = min(2 * size, most)
        its_rate = _rate(engine, larger)
        if NEARLY * its_rate <= rate:
            break
        size, rate = larger, its_rate
    return size


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
