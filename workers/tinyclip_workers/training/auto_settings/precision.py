"""`precision: auto`: the faster of fp32 and bf16, timed on the training machines at the start of a stage.

bf16 is several times as fast as fp32 on some devices and slower on others of the same kind (CPUs with AVX512-BF16 but without
AMX), also depending on the model. So both take the stage's own step: teachers, student, gradient.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.model.precision import eager, precision_of
from tinyclip_workers.training.distributed import world_size
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.teachers.frozen import teachers_forward
from tinyclip_workers.training.trainer import StageTrainer

CANDIDATES = ("fp32", "bf16")
REQUIRED_SPEEDUP = 1.1
"""bf16 must be that many times as fast as fp32, which is more exact."""
FEWEST_PAIRS, GROWTH = 8, 4
SUFFICIENT_SECONDS = 0.25
"""The part of the batch grows until a step of each precision takes this long together, and so is timed reliably."""
REPETITIONS = 3
MAX_SECONDS = 10.0
"""No repetition starts after that many seconds of steps: a large model on a slow device has spent enough by then."""
MASKS_SEED = 0

Seconds = Callable[[str, int], float]
"""Takes a step in a precision on a number of pairs and returns how long it took, in seconds; infinity: out of memory."""


@dataclass(frozen=True)
class PrecisionTest:
    """The selected precision, and the seconds of a step of that many pairs in each; infinite if it did not fit into memory."""

    precision: str
    seconds: dict[str, float]
    pairs: int

    def __str__(self) -> str:
        times = ", ".join(f"{name}: {1000 * each:,.1f} ms" for name, each in self.seconds.items())
        return f"{self.precision} ({times} a step of {self.pairs} pairs)" if times else f"{self.precision}: the GPU has no bf16"

    def to_json(self) -> dict[str, Any]:
        seconds = {name: each if math.isfinite(each) else None for name, each in self.seconds.items()}
        return {"precision": self.precision, "seconds": seconds, "pairs": self.pairs}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PrecisionTest":
        seconds = {name: math.inf if each is None else each for name, each in data["seconds"].items()}
        return cls(data["precision"], seconds, data["pairs"])


def measure_precision(trainer: StageTrainer, batches: Iterator[Batch]) -> tuple[PrecisionTest, Iterator[Batch]]:
    """Time both; returns the selected one and batches that start where `batches` did. Collective.

    Uses the first batch. Weights, running statistics, gradients, random state and position stay as they are. All workers select
    the same: they compare the times of the slowest.
    """
    device = trainer.device
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return PrecisionTest("fp32", {}, 0), batches
    first = next(batches)
    seconds_of, local_batch = _timed_step(trainer, first), len(first.images_BCHW)
    most = min(local_batch, trainer.micro_batch or local_batch)
    pairs, seconds = compare(lambda name, pairs: _slowest(seconds_of(name, pairs), device), most)
    faster = seconds["bf16"] * REQUIRED_SPEEDUP <= seconds["fp32"]
    return PrecisionTest("bf16" if faster else "fp32", seconds, pairs), chain([first], batches)


def compare(seconds_of: Seconds, most: int) -> tuple[int, dict[str, float]]:
    """Return the shortest time of a step in each precision, and its number of pairs, at most `most`.

    The number grows until a step takes long enough to be timed. Precisions alternate, so that a busy moment of the machine
    counts for both.
    """
    pairs = min(FEWEST_PAIRS, most)
    best = _both(seconds_of, pairs)
    if sum(best.values()) >= MAX_SECONDS:  # the first steps of a size also allocate memory and choose kernels: little of this
        return pairs, best
    best = _both(seconds_of, pairs)
    while pairs < most and sum(best.values()) < SUFFICIENT_SECONDS:
        pairs = min(GROWTH * pairs, most)
        _both(seconds_of, pairs)
        best = _both(seconds_of, pairs)
    spent, repetitions = sum(best.values()), 0
    while repetitions < REPETITIONS and spent < MAX_SECONDS:
        again = _both(seconds_of, pairs)
        best = {name: min(best[name], again[name]) for name in CANDIDATES}
        spent, repetitions = spent + sum(again.values()), repetitions + 1
    return pairs, best


def _both(seconds_of: Seconds, pairs: int) -> dict[str, float]:
    return {name: seconds_of(name, pairs) for name in CANDIDATES}


def _timed_step(trainer: StageTrainer, batch: Batch) -> Seconds:
    """Return a function that takes a step on a part of the batch with a copy of the student, and its time in seconds."""
    device, learner = trainer.device, trainer.learner
    inputs = trainer.prepare(batch)
    noise = learner.noise(MASKS_SEED)
    # A copy: batch normalisation would update the student's statistics, and masks and weights would get gradients.
    towers = copy.deepcopy(learner.towers.module if isinstance(learner.towers, DistributedDataParallel) else learner.towers)

    def step(name: str, pairs: int) -> None:
        precision = precision_of(name, device)
        own, theirs = inputs.student.first(pairs), [each.first(pairs) for each in inputs.teachers]
        teachers_forward(trainer.teachers, theirs, precision)
        cache = GradientCache(towers, precision)
        image_BD, text_BD, *_ = cache.forward(*own, noise)
        cache.backward((image_BD * text_BD).sum())

    def timed(name: str, pairs: int) -> float:
        _synchronize(device)
        started = time.perf_counter()
        try:
            with eager():  # compilation for these sizes would take longer than all else
                step(name, pairs)
            _synchronize(device)
            return time.perf_counter() - started
        except torch.OutOfMemoryError:
            return math.inf
        finally:
            towers.zero_grad(set_to_none=True)

    return timed


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _slowest(seconds: float, device: torch.device) -> float:
    """Return the largest of all workers' numbers: a step ends when its slowest worker has ended. Collective."""
    if world_size() == 1:
        return seconds
    number = torch.tensor(seconds, device=device, dtype=torch.float64)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return number.item()
