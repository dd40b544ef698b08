"""The meaning of a spec's `precision`: the type in which products are computed, and gradient scaling."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class Precision:
    """`autocast` for every forward pass, and a `scaler` of gradients, a no-op except with fp16."""

    name: str
    """fp32, bf16 or fp16."""
    autocast: Callable[[], AbstractContextManager[Any]]
    scaler: torch.amp.GradScaler
    backward: Callable[[], AbstractContextManager[Any]] = nullcontext
    """For every backward pass, which repeats parts of the forward pass with `gradient_checkpointing`."""


def precision_of(precision: str, device: torch.device) -> Precision:
    """Resolve a spec's precision; `auto` without a measurement is bf16 where CUDA has it, else fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    if precision == "fp32":
        return Precision(precision, nullcontext, scaler)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    if device.type == "cpu":
        return Precision(precision, lambda: _autocast_on_cpu(dtype), scaler, _unfused_attention)
    return Precision(precision, lambda: torch.autocast(device.type, dtype=dtype), scaler)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid in the block that CUDA rounds the operands of fp32 products to TF32, which has 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_tf32("high" if allowed else "highest", allowed)
    try:
        yield
    finally:
        _set_tf32(*before)


@contextmanager
def exact() -> Iterator[None]:
    """Compute in the block as an evaluation does: fp32 products without TF32, and nothing compiled for its shapes."""
    with tf32(False), eager():
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Compile nothing in the block: modules that are compiled in training compute without it."""
    may_be_compiled = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")  # importing it takes seconds
    with torch.compiler.set_stance("force_eager") if may_be_compiled else nullcontext():
        yield


def _set_tf32(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


FP32 = precision_of("fp32", torch.device("cpu"))


@contextmanager
def _autocast_on_cpu(dtype: torch.dtype) -> Iterator[None]:
    with torch.autocast("cpu", dtype=dtype), _unfused_attention():
        yield


def _unfused_attention() -> AbstractContextManager[Any]:
    """Return a context for half types on CPUs, where torch 2.13's fused backward is six times slower than in fp32."""
    context: AbstractContextManager[Any] = sdpa_kernel(SDPBackend.MATH)
    return context


def fp32(x: Tensor) -> Tensor:
    """Convert to fp32; fp64 stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """Compute products on a tensor's device in the types of their operands."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        yield
