"""What a spec's `precision` means: in which type products are computed, and whether gradients are scaled."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class Precision:
    """`autocast` around every forward pass; `scaler` for gradients, which without fp16 does nothing."""

    autocast: Callable[[], AbstractContextManager[Any]]
    scaler: torch.amp.GradScaler


def precision_of(precision: str, device: torch.device) -> Precision:
    """`auto`: bf16 where CUDA has it in hardware, else fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    if precision == "fp32":
        return Precision(nullcontext, scaler)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    autocast: Callable[[torch.dtype], AbstractContextManager[Any]]
    autocast = _autocast_on_cpu if device.type == "cpu" else lambda dtype: torch.autocast(device.type, dtype=dtype)
    return Precision(lambda: autocast(dtype), scaler)


FP32 = precision_of("fp32", torch.device("cpu"))


@contextmanager
def _autocast_on_cpu(dtype: torch.dtype) -> Iterator[None]:
    """With attention written out: torch 2.13's fused backward of half types is six times slower on a CPU than its fp32 one."""
    with torch.autocast("cpu", dtype=dtype), sdpa_kernel(SDPBackend.MATH):
        yield


def fp32(x: Tensor) -> Tensor:
    """In fp32, or in fp64 if that is what it is."""
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """Products of a tensor's device are computed in the types that they are given in."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        yield
