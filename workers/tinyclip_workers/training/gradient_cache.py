"""The gradient of a whole global batch from small parts of it: cached-feature accumulation (Gao et al. 2021, GradCache).

A loss that compares all rows with all rows is not a mean over micro-batches. So the embeddings of every micro-batch are
computed first, without a graph; the loss on all of them gives the gradient of each embedding; then every micro-batch is run
again and that gradient is sent back through it. Costs one more forward pass, and the memory of one micro-batch.

Shapes: B local batch, D embedding size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.training.losses import Embeddings


def backward_in_parts(
    student: nn.Module,
    parts: Sequence[tuple[Any, ...]],
    loss_of: Callable[[Embeddings], Tensor],
    *,
    besides: Callable[[], Tensor] | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    scaled: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Adds to every parameter's gradient that of `loss_of` (all local rows) and of `besides`; returns their sum (scalar).

    `student(*part)` gives the fields of Embeddings in their order; it may be wrapped in DistributedDataParallel, whose
    workers then meet once, in the last part. Whatever is random in a forward pass must come from a part's arguments (the noise
    of masks: the same in every part). `scaled` is a GradScaler's `scale`. With one part this is a plain forward and backward.

    Equal to the whole batch at once up to rounding, except that batch normalisation sees one part at a time.
    """
    if len(parts) == 1:
        with autocast():
            loss = loss_of(Embeddings(*student(*parts[0]))) + (besides() if besides else 0)
        scaled(loss).backward()
        return loss.detach()
    cached = _embeddings(student, parts, autocast)
    with autocast():
        loss = loss_of(cached)
    scaled(loss).backward()
    constraint = besides() if besides else loss.new_zeros(())
    _send_back(student, parts, cached, scaled(constraint), autocast)
    return (loss + constraint).detach()


def _send_back(
    student: nn.Module,
    parts: Sequence[tuple[Any, ...]],
    cached: Embeddings,
    besides: Tensor,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Runs every part again, now with a graph, and sends back what its embeddings collected."""
    first = 0
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        with _no_meeting(student, unless=is_last):
            with autocast():
                outputs = student(*part)
            rows = slice(first, first + len(outputs[0]))
            sent = besides if is_last else besides.new_zeros(())
            for output, leaf in zip(outputs, vars(cached).values(), strict=False):  # what is not given is None at the end
                if output.ndim:
                    sent = sent + _sent_back(output, leaf, rows)
                elif is_last:
                    sent = sent + _sent_back(output, leaf, ...)
            sent.backward()
        first = rows.stop


def _embeddings(
    student: nn.Module, parts: Sequence[tuple[Any, ...]], autocast: Callable[[], AbstractContextManager[Any]]
) -> Embeddings:
    """Of all parts, as leaves that collect gradients."""
    # DDP's own forward would announce a backward pass that does not come.
    bare = student.module if isinstance(student, DistributedDataParallel) else student
    with torch.no_grad(), _statistics_untouched(bare), autocast():
        fields = zip(*(bare(*part) for part in parts), strict=True)
    leaves = [torch.cat(outputs) if outputs[0].ndim else outputs[0].clone() for outputs in fields]
    return Embeddings(*(leaf.detach().requires_grad_() for leaf in leaves))


def _sent_back(output: Tensor, cached: Tensor | float, rows: Any) -> Tensor:
    """A scalar whose gradient to `output` is that which the cached copy collected; 0 where the loss has no use for it."""
    assert isinstance(cached, Tensor)
    if cached.grad is None or not output.requires_grad:
        return output.new_zeros(())
    return (output * cached.grad[rows]).sum()


@contextmanager
def _no_meeting(student: nn.Module, unless: bool) -> Iterator[None]:
    if isinstance(student, DistributedDataParallel) and not unless:
        with student.no_sync():
            yield
    else:
        yield


@contextmanager
def _statistics_untouched(student: nn.Module) -> Iterator[None]:
    """The first pass must not count in the running statistics of batch normalisation: the second does."""
    with ExitStack() as stack:
        for module in student.modules():
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
                module.track_running_stats = False
                stack.callback(setattr, module, "track_running_stats", True)
        yield
