"""`micro_batch: auto`: the largest part of a local batch that fits into a GPU's memory, measured at the start of a stage.

Memory grows linearly with the part, so two small parts predict it. The largest power of two that is predicted to fit is
tried, and halved until it does. Nothing here waits for another worker, so one that runs out of memory does not block the others.
"""

import copy
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from open_clip.modified_resnet import ModifiedResNet
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.training.distributed import wait_for_all, world_size
from tinyclip_workers.training.gpu_share import free_bytes
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.teachers.frozen import teachers_forward
from tinyclip_workers.training.trainer import StageTrainer

SMALL = 16
"""Pairs of the first measurement; the second one has twice as many."""
MARGIN = 0.1
"""Share of the free memory that is left to fragmentation and to what varies between steps."""
LOSS_MATRICES = 12
"""Matrices (local batch, global batch) in fp32 that a term of the objective keeps for its gradient, at most."""
MASKS_SEED = 0

Peak = Callable[[int], int | None]
"""Encodes that many pairs, with gradient; returns the bytes that this takes at its peak, or None: out of memory."""


@dataclass(frozen=True)
class MicroBatchTest:
    """The selected part of a local batch (`None`: always all of it), the bytes of each part that was measured, and the budget.

    If the whole batch fits, the part is its size: a group that continues with fewer workers has larger batches.
    """

    micro_batch: int | None
    local_batch: int
    peaks: dict[int, int | None]
    budget: int

    def __str__(self) -> str:
        if self.micro_batch is None:
            return "all pairs at once: memory is measured on GPUs only, and not with batch normalisation"
        found = ", ".join(f"{pairs} pairs: {_gigabytes(peak)}" for pairs, peak in self.peaks.items())
        return f"{self.micro_batch} of {self.local_batch} pairs at once ({_gigabytes(self.budget)} are free; {found})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "MicroBatchTest":
        return cls(**{**data, "peaks": {int(pairs): peak for pairs, peak in data["peaks"].items()}})


def measure_micro_batch(trainer: StageTrainer, batches: Iterator[Batch]) -> tuple[MicroBatchTest, Iterator[Batch]]:
    """Measure on the first batch; returns the result and batches that start where `batches` did. Collective.

    All workers use the smallest result. On CPUs, and with batch normalisation, whose statistics would be those of a part, it is
    the whole batch. The student stays as it is.
    """
    first = next(batches)
    local_batch = len(first.images_BCHW)
    memory = _memory(trainer, first)
    if memory is None:
        return MicroBatchTest(None, local_batch, {}, 0), chain([first], batches)
    peak, budget = memory
    fitting, peaks = largest_part(peak, local_batch, budget)
    return MicroBatchTest(_smallest(fitting, trainer.device), local_batch, peaks, budget), chain([first], batches)


def largest_part(peak: Peak, local_batch: int, budget: int) -> tuple[int, dict[int, int | None]]:
    """Return the whole batch if it fits into the budget, else the largest power of two that does, at least 1.

    Also returns all peaks, the one of the result among them, unless it is 1.
    """
    peaks = {pairs: peak(pairs) for pairs in sorted({min(SMALL, local_batch), min(2 * SMALL, local_batch)})}
    part = _predicted(peaks, local_batch, budget)
    while part > 1:
        if part not in peaks:
            peaks[part] = peak(part)
        found = peaks[part]
        if found is not None and found <= budget:
            break
        part = _power_below(part)
    return part, peaks


def _predicted(peaks: dict[int, int | None], local_batch: int, budget: int) -> int:
    """Return what fits if memory continues to grow as between the measured parts."""
    (few, least), (many, most) = min(peaks.items()), max(peaks.items())
    if least is None or most is None or few == many:
        return many
    each = max(1.0, (most - least) / (many - few))
    fitting = few + (budget - least) / each
    return local_batch if fitting >= local_batch else 2 ** int(math.log2(max(1, fitting)))


def _power_below(part: int) -> int:
    return int(2 ** (math.ceil(math.log2(part)) - 1))


def _memory(trainer: StageTrainer, batch: Batch) -> tuple[Peak, int] | None:
    """Return a function that measures a part of the batch, and the bytes that a part may take; None where neither is known."""
    learner, device = trainer.learner, trainer.device
    if device.type != "cuda" or isinstance(trainer.student.visual, ModifiedResNet):
        return None
    inputs = trainer.prepare(batch)
    noise = learner.noise(MASKS_SEED)
    # A copy: masks and weights would get gradients. It takes as much memory as one of the optimizer's two moments.
    towers = copy.deepcopy(learner.towers.module if isinstance(learner.towers, DistributedDataParallel) else learner.towers)

    def peak(pairs: int) -> int | None:
        own, theirs = inputs.student.first(pairs), [each.first(pairs) for each in inputs.teachers]
        _clear(device)
        before = torch.cuda.memory_allocated(device)
        try:
            teachers_forward(trainer.teachers, theirs, trainer.precision)
            cache = GradientCache(towers, trainer.precision)
            image_BD, text_BD, *_ = cache.forward(*own, noise)
            cache.backward((image_BD * text_BD).sum())
            return torch.cuda.max_memory_allocated(device) - before
        except torch.OutOfMemoryError:
            return None
        finally:
            towers.zero_grad(set_to_none=True)

    return peak, _budget(trainer, len(inputs.student.images_BCHW))


def _budget(trainer: StageTrainer, local_batch: int) -> int:
    """Return the free bytes of the device, less what a step takes besides its parts."""
    _clear(trainer.device)
    weights = sum(p.numel() * p.element_size() for p in trainer.learner.towers.parameters() if p.requires_grad)
    optimizer = trainer.learner.optimizer
    moments = 0 if optimizer is None or optimizer.state else 2 * weights
    terms = sum(weight > 0 for weight in trainer.stage.objective.weights().values()) * max(1, len(trainer.nesting.sizes))
    losses = terms * LOSS_MATRICES * 4 * local_batch * local_batch * world_size()
    return int((1 - MARGIN) * free_bytes(trainer.device)) - moments - losses


def _clear(device: torch.device) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def _smallest(number: int, device: torch.device) -> int:
    """Return the smallest of all workers' numbers. Collective."""
    if world_size() == 1:
        return number
    wait_for_all()
    numbers = torch.tensor(number, device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MIN)
    return int(numbers)


def _gigabytes(count: int | None) -> str:
    return "out of memory" if count is None else f"{count / 1e9:.1f} GB"
