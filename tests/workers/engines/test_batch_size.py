"""How many pictures are computed together: what a pretended engine's times say."""

from types import SimpleNamespace

import numpy as np
import pytest
from tinyclip_workers.engines import batch_size as engine_batch
from tinyclip_workers.engines.batch_size import best_batch_size
from tinyclip_workers.types import Matrix, Pixels


class Timed:
    """An engine that takes `fixed` seconds a call and `each` a picture, and notes the sizes that it was asked for."""

    image_size = 4

    def __init__(self, fixed: float, each: float, steps: int = 1) -> None:
        """Pictures cost something by the `steps`, as on a GPU that computes so many at once."""
        self.now, self.sizes = 0.0, [0]
        self._fixed, self._each, self._steps = fixed, each, steps

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        assert (images_BSSC.dtype, images_BSSC.shape[1:]) == (np.uint8, (4, 4, 3))
        self.sizes.append(len(images_BSSC))
        self.now += self._fixed + self._each * -(-len(images_BSSC) // self._steps)
        return np.zeros((len(images_BSSC), 2), np.float32)


@pytest.mark.parametrize(
    ("engine", "most", "batch"),
    [
        (Timed(0.0, 0.02), 32, 8),  # a large picture on a CPU
        (Timed(0.0005, 0.02), 32, 8),
        (Timed(0.001, 0.02), 32, 8),
        (Timed(0.002, 0.002), 32, 32),  # a small one: 16 give 97 % of what 32 do
        (Timed(0.002, 0.002), 8, 8),
        (Timed(0.001, 0.01, steps=64), 32, 32),  # a GPU
        (Timed(0.001, 0.01, steps=64), 100, 64),
        (Timed(0.0, 0.02), 1, 1),
        (Timed(0.0, 0.02), 3, 3),
    ],
)
def test_as_many_as_pay(monkeypatch: pytest.MonkeyPatch, engine: Timed, most: int, batch: int) -> None:
    monkeypatch.setattr(engine_batch, "time", SimpleNamespace(perf_counter=lambda: engine.now))

    assert best_batch_size(engine, most) == batch
    assert max(engine.sizes) <= most


def test_a_slow_engine_is_not_timed_at_sizes_that_cannot_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Timed(0.0, 1.0)
    monkeypatch.setattr(engine_batch, "time", SimpleNamespace(perf_counter=lambda: engine.now))

    best_batch_size(engine, 1024)

    assert sorted(set(engine.sizes)) == [0, 8, 16]
