"""AdamW and its schedule (METHOD sections 4 and 5)."""

import math

import torch
from tinyclip.schemas.spec import OptimizerSpec
from torch import nn


def make_optimizer(model: nn.Module, spec: OptimizerSpec, projection: nn.Module | None = None) -> torch.optim.AdamW:
    """Weight decay for matrices (embeddings and projections included), none for vectors, norms, biases and the logit scale.

    `projection` is what is trained with the model and in the same way: a projection into the teacher's space.
    """
    modules = [model] if projection is None else [model, projection]
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if _decays(name, p)], "weight_decay": spec.weight_decay},
        {"params": [p for name, p in named if not _decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))


def learning_rate(step: int, steps: int, spec: OptimizerSpec) -> float:
    """Linear warm-up to `lr`, then a half cosine to 0."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    return spec.lr * 0.5 * (1 + math.cos(math.pi * (step - spec.warmup_steps) / max(1, steps - spec.warmup_steps)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
