"""Batch normalisation over the whole global batch, on gloo and nccl alike (torch's own SyncBatchNorm is for CUDA only).

With it, W workers compute the loss, gradients and running statistics of one process that holds all rows.
Shapes: B local batch, C channels, W world size.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tinyclip_workers.training.distributed import gather, world_size

Module = TypeVar("Module", bound=nn.Module)


def synchronize_batch_norm(module: Module) -> Module:
    """Replace every BatchNorm2d inside `module` by one over all workers' rows; parameters and their names are kept.

    Returns the module. With one worker nothing changes.
    """
    if world_size() == 1:
        return module
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, _synchronized(child))
        else:
            synchronize_batch_norm(child)
    return module


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch; local batches may differ in size."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        mean_C, var_C, count = _global_statistics(input)
        self._track(mean_C, var_C * count / (count - 1))
        normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean_C, var_C, count, self.eps
        )
        return normalised

    def _track(self, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None and self.running_var is not None  # noqa: PT018
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without momentum, the statistics are the means over all batches.
        momentum: Any = (1 / self.num_batches_tracked).to(mean_C.dtype) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased_var_C.to(self.running_var.dtype), momentum)


def _synchronized(plain: nn.BatchNorm2d) -> SynchronizedBatchNorm2d:
    new = SynchronizedBatchNorm2d(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats).train(
        plain.training
    )
    for name, parameter in plain.named_parameters(recurse=False):
        setattr(new, name, parameter)
    for name, buffer in plain.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new


def _global_statistics(x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and (biased) variance of every channel over all workers, fp32 or finer, and a channel's number of values.

    Workers' means and variances are merged: sums of squares would lose digits on which all workers must agree.
    """
    with torch.no_grad():
        x_BCHW = x_BCHW.detach()
        x_BCHW = x_BCHW if x_BCHW.dtype in (torch.float32, torch.float64) else x_BCHW.float()
        var_C, mean_C = torch.var_mean(x_BCHW, dim=(0, 2, 3), correction=0)
        count = mean_C.new_full((1,), x_BCHW.numel() / x_BCHW.shape[1])
        channels = len(mean_C)
        statistics = gather(torch.cat([mean_C, var_C, count])[None])
        mean_WC, var_WC, count_W1 = statistics.tensor_split([channels, 2 * channels], dim=1)
        share_W1 = count_W1 / count_W1.sum()
        mean_C = (share_W1 * mean_WC).sum(0)
        var_C = (share_W1 * (var_WC + (mean_WC - mean_C).square())).sum(0)
        return mean_C, var_C, count_W1.sum()


class _Normalise(torch.autograd.Function):
    """(x - mean) / std * weight + bias, where mean and std are functions of every worker's x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean_C: Tensor, var_C: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean_C, (var_C + eps).rsqrt(), count)
        return F.batch_norm(x, mean_C, var_C, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean_C, inverse_std_C, count = ctx.saved_tensors
        grad = grads[0].to(mean_C.dtype)
        normal = (x.to(mean_C.dtype) - _channels(mean_C)) * _channels(inverse_std_C)
        sums_2C = torch.cat([grad.sum((0, 2, 3)), (grad * normal).sum((0, 2, 3))])
        grad_bias_C, grad_weight_C = sums_2C.clone().chunk(2)
        # DDP averages the gradients of weight and bias like any other; only the input's needs all rows here.
        dist.all_reduce(sums_2C)
        mean_grad_C, mean_grad_normal_C = (sums_2C / count).chunk(2)
        slope_C = inverse_std_C if weight is None else inverse_std_C * weight
        grad_x = _channels(slope_C) * (grad - _channels(mean_grad_C) - normal * _channels(mean_grad_normal_C))
        return (
            grad_x.to(x.dtype),
            None if weight is None else grad_weight_C,
            None if weight is None else grad_bias_C,
            None,
            None,
            None,
            None,
        )


def _channels(x_C: Tensor) -> Tensor:
    return x_C[None, :, None, None]
