"""The largest batch of images that a replica computes together: larger ones must raise the rate on this machine.

If a batch costs as much as its images one by one, as with large images on a CPU, batching only makes the first image wait for the
last. Docs: docs/serving.md, "Batches".
"""

import time

import numpy as np

from tinyclip_workers.engines.protocol import Engine

MIN_BATCH = 8
"""Smaller batches are dominated by the cost of a call: threads are woken for each, and caches are cold."""
SUFFICIENT_SHARE = 0.98
"""The smaller of two batches is preferred if it reaches this share of the other's rate."""
REPETITIONS = 3
"""Timed calls for each size; the fastest counts."""


def best_batch_size(engine: Engine, limit: int) -> int:
    """Double the batch from `MIN_BATCH` up to `limit` images for as long as the engine's images per second clearly increase."""
    size = min(MIN_BATCH, limit)
    rate = _images_per_second(engine, size)
    while size < limit:
        larger = min(2 * size, limit)
        larger_rate = _images_per_second(engine, larger)
        if SUFFICIENT_SHARE * larger_rate <= rate:
            break
        size, rate = larger, larger_rate
    return size


def _images_per_second(engine: Engine, size: int) -> float:
    images = np.zeros((size, engine.image_size, engine.image_size, 3), np.uint8)
    engine.encode_image(images)  # the first call of a size allocates and compiles: not timed
    seconds = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        engine.encode_image(images)
        seconds.append(time.perf_counter() - started)
    return size / min(seconds)
