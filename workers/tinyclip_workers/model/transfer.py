"""Copies to a device for which the CPU does not wait, and modules that are on a device for a while.

A plain copy from the CPU to CUDA waits until everything queued there has been computed.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Queue the copy of a tensor to a device, from pinned memory if that is CUDA."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers as a vector of the type and on the device of another tensor."""
    return to_device(torch.tensor(values, dtype=like.dtype), like.device)


@contextmanager
def on_device(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Put modules on a device in the block, and then back to where their weights were."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.to, next(module.parameters()).device)
            module.to(device)
        yield
