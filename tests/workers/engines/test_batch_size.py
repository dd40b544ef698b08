"""The batch size that is chosen for the measured times of a fake engine."""

from types import SimpleNamespace

import numpy as np
import pytest
from tinyclip_workers.engines import batch_size
from tinyclip_workers.engines.batch_size import best_batch_size
from tinyclip_workers.types import Matrix, Pixels


class FakeEngine:
    """An engine that takes `fixed` seconds for a call and `each` for an image, and records the batch sizes."""

    image_size = 4

    def __init__(self, fixed: float, each: float, steps: int = 1) -> None:
        """`steps`: images that are computed at once, as on a GPU."""
        self.now, self.sizes = 0.0, [0]
        self._fixed, self._each, self._steps = fixed, each, steps

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        assert (images_BSSC.dtype, images_BSSC.shape[1:]) == (np.uint8, (4, 4, 3))
        self.sizes.append(len(images_BSSC))
        self.now += self._fixed + self._each * -(-len(images_BSSC) // self._steps)
        return np.zeros((len(images_BSSC), 2), np.float32)


@pytest.mark.parametrize(
    ("engine", "limit", "expected"),
    [
        (FakeEngine(0.0, 0.02), 32, 8),  # a large image on a CPU
        (FakeEngine(0.0005, 0.02), 32, 8),
        (FakeEngine(0.001, 0.02), 32, 8),
        (FakeEngine(0.002, 0.002), 32, 32),  # a small one: 16 reach 97 % of the rate of 32
        (FakeEngine(0.002, 0.002), 8, 8),
        (FakeEngine(0.001, 0.01, steps=64), 32, 32),  # a GPU
        (FakeEngine(0.001, 0.01, steps=64), 100, 64),
        (FakeEngine(0.0, 0.02), 1, 1),
        (FakeEngine(0.0, 0.02), 3, 3),
    ],
)
def test_the_batch_grows_while_the_rate_increases(
    monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, limit: int, expected: int
) -> None:
    monkeypatch.setattr(batch_size, "time", SimpleNamespace(perf_counter=lambda: engine.now))

    assert best_batch_size(engine, limit) == expected
    assert max(engine.sizes) <= limit


def test_larger_batches_are_not_timed_after_one_without_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(0.0, 1.0)
    monkeypatch.setattr(batch_size, "time", SimpleNamespace(perf_counter=lambda: engine.now))

    best_batch_size(engine, 1024)

    assert sorted(set(engine.sizes)) == [0, 8, 16]
