"""Helpers for the process group of a worker group; without a group, this process is rank 0 of 1.

Shapes: B local batch, W world size, N = W*B global batch, D embedding size.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""Time limit of waiting for a worker that works alone. One that hangs ends earlier: `timeouts.progress_seconds`."""


def rank() -> int:
    """Return this worker's rank in the process group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of workers in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def prepare_to_wait() -> None:
    """Create what `wait_for_all` needs. Collective: to be called where all workers start."""
    if world_size() > 1:
        dist.all_gather_object([None] * world_size(), None)  # one that has not started is noticed within the usual limit
        _patient_group(dist.group.WORLD)


def wait_for_all() -> None:
    """Wait for a worker that works alone, as worker 0 in an evaluation, for longer than a collective may take. Collective.

    The others would wait in the next collective of the step, which fails after 30 minutes.
    """
    if world_size() > 1:
        dist.barrier(_patient_group(dist.group.WORLD))


@lru_cache(maxsize=1)
def _patient_group(_: Any) -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def from_first_worker(value: T) -> T:
    """Return the value of worker 0, which can be pickled and may take long to compute. Collective."""
    wait_for_all()
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    first: T = values[0]
    return first


def gather(x_BD: Tensor) -> Tensor:
    """Gather all workers' rows in rank order, (N, D), without gradient."""
    if world_size() == 1:
        return x_BD.detach()
    x_NDs = [torch.empty_like(x_BD, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(x_NDs, x_BD.detach().contiguous())
    return torch.cat(x_NDs)


def gather_with_gradient(x_BD: Tensor) -> Tensor:
    """Gather all workers' rows in rank order, (N, D); the gradient of a worker's rows is summed over all workers."""
    if world_size() == 1:
        return x_BD
    gathered: Tensor = _Gather.apply(x_BD)  # type: ignore[no-untyped-call]
    return gathered


def read_scalars(averaged: Sequence[Tensor], alike: Sequence[Tensor], summed: float) -> tuple[list[float], list[float], float]:
    """Return the means of scalars over the workers, scalars that are the same on all, and the sum of the workers' numbers.

    One collective and one copy to the CPU: the only point of a step at which the CPU waits for the device.
    """
    numbers = torch.stack([*(x.detach().float().reshape(()) for x in averaged), averaged[0].new_full((), summed).float()])
    if world_size() > 1:
        dist.all_reduce(numbers)
        numbers[:-1] /= world_size()
    own = torch.stack([x.detach().float().reshape(()) for x in alike])
    read = torch.cat([numbers, own]).cpu().tolist()
    count = len(averaged)
    return read[:count], read[count + 1 :], read[count]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        ctx.batch = len(x_BD)
        return gather(x_BD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # all_reduce and a slice, not reduce_scatter: the same sum, and gloo has it for every type.
        grad_ND = grads[0].contiguous().clone()
        dist.all_reduce(grad_ND)
        return grad_ND[rank() * ctx.batch : (rank() + 1) * ctx.batch]
