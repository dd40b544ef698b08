"""AdamW for weights and for masks, its schedule, and its state in checkpoints (METHOD sections 4 and 5)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from tinyclip.schemas.spec import OptimizerSpec
from torch import Tensor, nn

from tinyclip_workers.model.masks import Tower, TowerMasks
from tinyclip_workers.training.stage import Stage


def make_optimizer(model: nn.Module, spec: OptimizerSpec, projection: nn.Module | None = None) -> torch.optim.AdamW:
    """Make the weights' AdamW: weight decay for matrices and embeddings, none for vectors, norms, biases and the logit scale.

    `projection`, into the teacher's space, is trained with the model and in the same way.
    """
    modules = [model] if projection is None else [model, projection]
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if _decays(name, p)], "weight_decay": spec.weight_decay},
        {"params": [p for name, p in named if not _decays(name, p)], "weight_decay": 0.0},
    ]
    # Each step sets its rate.
    return torch.optim.AdamW(groups, lr=0.0, betas=spec.betas, eps=spec.eps, fused=True)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))


def mask_optimizer(
    masks: Mapping[Tower, TowerMasks], lr: float = 0.02, multiplier_lr: float | None = None
) -> torch.optim.AdamW:
    """Make the masks' AdamW, at constant rates: descent for log-odds, ascent for lambdas, which only grow."""
    loga = [parameter for tower in masks.values() for parameter in tower.loga().values()]
    lambdas = [parameter for tower in masks.values() for parameter in (tower.lambda_1, tower.lambda_2)]
    groups: list[dict[str, Any]] = [{"params": loga}, {"params": lambdas, "maximize": True, "lr": multiplier_lr or lr}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)


def learning_rate(step: int, steps: int, spec: OptimizerSpec) -> float:
    """Return the rate of a step: linear warm-up to `lr`, then a half cosine to 0. Raises ValueError while `lr` is `auto`."""
    if spec.lr == "auto":
        raise ValueError("optimizer.lr is auto, and no rate has been selected; give a number")
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    return spec.lr * 0.5 * (1 + math.cos(math.pi * (step - spec.warmup_steps) / max(1, steps - spec.warmup_steps)))


def stage_learning_rate(step: int, stage: Stage) -> float:
    """Return the rate of a step of a stage (METHOD section 5). In an automatic stage the schedule starts anew after the cut.

    Before it, the rate warms up in a joint search, as in the paper, and is 0 in a frozen one. Raises ValueError as
    `learning_rate`.
    """
    prune, optimizer = stage.prune, stage.optimizer
    if prune is None:
        return learning_rate(step, stage.steps, optimizer)
    if step < prune.cut_step:
        if prune.search == "frozen":
            return 0.0
        return learning_rate(step, stage.steps, optimizer.model_copy(update={"warmup_steps": prune.cut_step}))
    if prune.warmup_steps is not None:
        optimizer = optimizer.model_copy(update={"warmup_steps": prune.warmup_steps})
    return learning_rate(step - prune.cut_step, stage.steps - prune.cut_step, optimizer)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return AdamW's moments and step counts by `<parameter number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned; learning rates are set by the schedule."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        like = parameters[int(number)]
        # The fused AdamW reads memory in order: a moment needs its parameter's memory format (channels last, for one).
        moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = moment
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
