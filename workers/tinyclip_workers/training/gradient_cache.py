"""The gradient of a whole global batch from micro-batches: cached-feature accumulation (Gao et al. 2021, GradCache).

A loss that compares all rows with all rows is not a mean over micro-batches. So the embeddings of every micro-batch are
computed first, without a graph; the loss on all of them gives the gradient of each embedding; then every micro-batch is
encoded again and that gradient is propagated through it. This costs one more forward pass and needs the memory of one
micro-batch.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.model.masked import Noise
from tinyclip_workers.model.precision import FP32, Precision


def micro_batches(images_BCHW: Tensor, tokens_BT: Tensor, size: int | None) -> list[tuple[Tensor, Tensor]]:
    """Split a local batch into parts of `size` pairs; `None` keeps it whole."""
    if size is None or size >= len(images_BCHW):
        return [(images_BCHW, tokens_BT)]
    return list(zip(images_BCHW.split(size), tokens_BT.split(size), strict=True))


class GradientCache:
    """One forward and one backward pass of a local batch, with at most `micro_batch` pairs in memory at once.

        cache = GradientCache(towers, precision, micro_batch)
        outputs = cache.forward(images_BCHW, tokens_BT)
        cache.backward(loss_of(outputs))

    The towers may be wrapped in DistributedDataParallel, whose workers synchronise once, in the last micro-batch. The result
    equals that of the whole batch at once up to rounding, except that batch normalisation sees one micro-batch at a time.
    With a single micro-batch these are a plain forward and backward pass.
    """

    def __init__(self, towers: nn.Module, precision: Precision = FP32, micro_batch: int | None = None) -> None:
        self._towers, self._precision, self._micro_batch = towers, precision, micro_batch
        self._parts: list[tuple[Any, ...]] = []
        self._cached: tuple[Tensor, ...] = ()

    def forward(self, images_BCHW: Tensor, tokens_BT: Tensor, noise: Noise | None = None) -> tuple[Tensor, ...]:
        """Encode the batch. Returns what the towers return: embeddings of all rows, and scalars.

        `noise` is the randomness of masks, the same for every micro-batch; there must be no other in the towers.
        """
        parts = micro_batches(images_BCHW, tokens_BT, self._micro_batch)
        self._parts = [part if noise is None else (*part, noise) for part in parts]
        if len(parts) == 1:
            with self._precision.autocast():
                outputs: tuple[Tensor, ...] = self._towers(*self._parts[0])
            return outputs
        # The forward pass of DistributedDataParallel would prepare for a backward pass that does not follow.
        bare = self._towers.module if isinstance(self._towers, DistributedDataParallel) else self._towers
        with torch.no_grad(), _frozen_statistics(bare), self._precision.autocast():
            by_part = [bare(*part) for part in self._parts]
        whole = [torch.cat(rows) if rows[0].ndim else rows[0].clone() for rows in zip(*by_part, strict=True)]
        self._cached = tuple(output.requires_grad_() for output in whole)
        return self._cached

    def backward(self, loss: Tensor, penalty: Tensor | None = None) -> Tensor:
        """Accumulate the gradient of the loss in every parameter; returns the loss, detached.

        `penalty` is a term that depends on parameters alone; it is added to the loss.
        """
        scale = self._precision.scaler.scale
        if len(self._parts) == 1:
            total = loss if penalty is None else loss + penalty
            with self._precision.backward():
                scale(total).backward()
            return total.detach()
        if penalty is None:
            penalty = loss.new_zeros(())
        scale(loss).backward()
        self._backward_parts(scale(penalty))
        return (loss + penalty).detach()

    def _backward_parts(self, penalty: Tensor) -> None:
        """Encode every micro-batch again, now with a graph, and propagate the gradients of its cached embeddings."""
        first = 0
        for part in self._parts[:-1]:
            with _no_sync(self._towers):
                first = self._backward_part(part, first)
        self._backward_part(self._parts[-1], first, penalty)

    def _backward_part(self, part: tuple[Any, ...], first: int, penalty: Tensor | None = None) -> int:
        """Propagate the gradients of the rows from `first` on and, in the last part, of scalars and penalty."""
        with self._precision.autocast():
            outputs = self._towers(*part)
        last = first + len(outputs[0])
        surrogate = outputs[0].new_zeros(()) if penalty is None else penalty
        for output, cached in zip(outputs, self._cached, strict=True):
            if cached.grad is None or not output.requires_grad:
                continue
            if output.ndim:
                surrogate = surrogate + (output * cached.grad[first:last]).sum()
            elif penalty is not None:
                surrogate = surrogate + output * cached.grad
        with self._precision.backward():
            surrogate.backward()
        return last


def _no_sync(towers: nn.Module) -> Any:
    return towers.no_sync() if isinstance(towers, DistributedDataParallel) else nullcontext()


@contextmanager
def _frozen_statistics(towers: nn.Module) -> Iterator[None]:
    """Keep the first pass out of the running statistics of batch normalisation: the second one counts."""
    with ExitStack() as stack:
        for module in towers.modules():
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
                module.track_running_stats = False
                stack.callback(setattr, module, "track_running_stats", True)
        yield
