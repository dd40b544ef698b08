"""Settings that make a step faster or smaller without changing what it computes, except for rounding."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from open_clip.model import CLIP
from tinyclip.schemas import JobSpec
from torch import Tensor, nn

from tinyclip_workers.model.blocks import causal_block
from tinyclip_workers.model.precision import tf32
from tinyclip_workers.model.towers import COMPILED_BLOCK, Clip, Model

BACKEND = "inductor"
SHAPES_OF_A_BLOCK = 8
"""Compiled versions of one block: with and without gradient and masks, and of several lengths of texts."""


@dataclass(frozen=True)
class Acceleration:
    """`compile` fuses the operations of every block; `gradient_checkpointing` computes blocks twice instead of keeping them."""

    compile: bool = False
    gradient_checkpointing: bool = False

    @classmethod
    def of(cls, spec: JobSpec) -> "Acceleration":
        return cls(spec.compile, spec.gradient_checkpointing)

    def apply(self, model: Model) -> None:
        """Set a model up, in place; names in its state dict stay.

        Only our towers and plain CLIP models of open_clip are compiled, and residual networks have no blocks of this kind.
        """
        if self.gradient_checkpointing:  # open_clip's Hugging Face text towers switch it on, whatever they are given
            model.set_grad_checkpointing(True)
        if self.compile and isinstance(model, CLIP | Clip):
            _compile_blocks(model)


PLAIN = Acceleration()


def _compile_blocks(model: Model) -> None:
    """Compile block by block, which takes a fraction of the time that a whole tower does: alike blocks share their code."""
    stacks = [model.transformer, getattr(model.visual, "transformer", None)]
    blocks = [block for stack in stacks if stack is not None and hasattr(stack, "resblocks") for block in stack.resblocks]
    _allow_versions(SHAPES_OF_A_BLOCK * len(blocks))
    if isinstance(model, CLIP):
        setattr(model.transformer, COMPILED_BLOCK, _compiled_causal_block(BACKEND))
        blocks = [block for block in blocks if block not in set(model.transformer.resblocks)]
    for block in blocks:
        block.compile(backend=BACKEND, fullgraph=True)


@functools.cache
def _compiled_causal_block(backend: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    compiled: Callable[[nn.Module, Tensor, Tensor], Tensor] = torch.compile(causal_block, backend=backend, fullgraph=True)
    return compiled


def _allow_versions(count: int) -> None:
    """Raise torch's limit of compiled versions of one function: blocks of an automatic student differ in size."""
    import torch._dynamo  # takes seconds

    name = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, name, max(count, getattr(torch._dynamo.config, name)))


@contextmanager
def fast_kernels(precision: str, device: torch.device) -> Iterator[None]:
    """Let CUDA round products to TF32, except with `fp32`, and measure which convolution is the fastest, in the block."""
    if device.type != "cuda":
        yield
        return
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with tf32(precision != "fp32"):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
