"""The student of a stage in training: a model with its optimizer and, until the prune step of an automatic stage, masks."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tinyclip.schemas.layouts import AnyLayout, Layout
from tinyclip.schemas.spec import PruneSpec
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.inheritance.importance import unit_importance
from tinyclip_workers.inheritance.shape import masks_of_size
from tinyclip_workers.inheritance.students import Calibration, cut_by_masks
from tinyclip_workers.model.masked import MaskedTowers, Noise, removed_share
from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.sparsity import SparsityPenalty
from tinyclip_workers.model.towers import Clip, Model, TwoTowers
from tinyclip_workers.training.acceleration import PLAIN, Acceleration
from tinyclip_workers.training.averaging import WeightAverage
from tinyclip_workers.training.batch_norm import synchronize_batch_norm
from tinyclip_workers.training.distributed import from_first_worker, world_size
from tinyclip_workers.training.objective.projection import Projection, WithProjection
from tinyclip_workers.training.optimizer import (
    make_optimizer,
    mask_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    stage_learning_rate,
)
from tinyclip_workers.training.pruning import PruneGoal, goal_of
from tinyclip_workers.training.stage import Stage

log = logging.getLogger(__name__)

MAX_LOGIT_SCALE = math.log(100)

SHORTFALL = 0.02
"""A warning is logged if a search ends this far below its target sparsity."""

_DDP_PARAMETERS = inspect.signature(DistributedDataParallel).parameters


class StageLearner:
    """A model in training on one worker. All workers have the same weights and prune at the same step."""

    def __init__(
        self,
        model: Model,
        stage: Stage,
        temperature: float | None,
        device: torch.device,
        projection: Projection | None = None,
        acceleration: Acceleration = PLAIN,
        calibration: Callable[[], Calibration] | None = None,
    ) -> None:
        """`temperature` is the fixed similarity multiplier, `None` for a learned one. `stage.layout` is the model's layout.

        `projection` maps into the teacher's space, if the objective needs it. It is trained here but no part of the student.
        `calibration` provides what a frozen or importance search cuts its student by.
        """
        self.stage: Stage = stage
        self.layout: AnyLayout = stage.layout
        self.projection = None if projection is None else projection.to(device)
        self._temperature, self._device, self._acceleration = temperature, device, acceleration
        self._calibration = calibration
        self.lr: float | None = None
        """A rate that replaces the schedule's, in a test of rates."""
        self.search: MaskedTowers | None = None
        self._mask_optimizer: torch.optim.Optimizer | None = None
        self._goal: PruneGoal | None = None
        if stage.prune is not None:
            assert isinstance(stage.layout, Layout), "masks are for our own towers"
            self._goal = goal_of(stage.prune, stage.layout)
            self.search = _masked(model, stage, stage.prune, self._goal).to(device)
            rates = stage.optimizer.mask_lr, stage.optimizer.multiplier_lr
            self._mask_optimizer = mask_optimizer(self.search.tower_masks(), *rates)
        self._start_training(model)

    def noise(self, seed: int) -> Noise | None:
        """Draw the random numbers of one forward pass under masks, on the CPU: the same for any device. `None` without masks."""
        return None if self.search is None else self.search.noise(torch.Generator().manual_seed(seed))

    def sparsity_penalty(self, step: int) -> SparsityPenalty | None:
        """Return the Lagrangian term for the target sparsity of a step; `None` without masks."""
        return None if self.search is None else self.search.sparsity_penalty(step)

    def start_step(self, step: int) -> float:
        """Set the learning rate of a step and clear the gradients; returns the rate."""
        lr = stage_learning_rate(step, self.stage) if self.lr is None else self.lr
        if self.optimizer is not None:
            set_learning_rate(self.optimizer, lr)
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)
        return lr

    def clip_gradients(self, scaler: torch.amp.GradScaler) -> Tensor:
        """Undo the scaling of gradients and clip them; returns their norm before (scalar).

        Gradients are already averaged, so all workers compute the same norm.
        """
        for optimizer in self._optimizers():
            scaler.unscale_(optimizer)
        parameters = [p for p in self.towers.parameters() if p.grad is not None]
        clip_norm = self.stage.optimizer.clip_norm
        return nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm is not None else float("inf"))

    def update(self, scaler: torch.amp.GradScaler, *, finite: bool) -> None:
        """Take the optimizers' steps, keep masks and temperature in range. Gradients that are not finite change nothing."""
        if finite:
            for optimizer in self._optimizers():
                optimizer.step()  # not `scaler.step`, which would read from the device again whether gradients are finite
            if self.search is not None:
                self.search.clamp_()
            with torch.no_grad():
                self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            if self.average is not None:
                self.average.update()
        scaler.update()

    def prune_if_due(self, step: int) -> bool:
        """Cut the student if this is the step to do so; it continues with a new optimizer. Returns whether it was cut."""
        if self.search is None or self.stage.prune is None or step < self.stage.prune.cut_step:
            return False
        if self.stage.prune.search == "importance":
            self._end_search(self._cut())
            return True
        target, found = self.search.constraint.target, self.search.sparsity()
        if found < target - SHORTFALL:
            log.warning(
                "stage %s: at the prune step the masks remove %.1f%%, the target is %.1f%%; "
                "raise prune.prune_step or optimizer.mask_lr to give the search more time",
                self.stage.name, 100 * found, 100 * target,
            )
        if self.stage.prune.granularity == "exact":
            self.search.match_target_sparsity()
        joint = self.stage.prune.search == "joint"
        self._end_search(self.search.folded_model() if joint else self._cut(self.search.deterministic()))
        return True

    def _cut(self, masks: Mapping[Tower, Mask] | None = None) -> Clip:
        """Return the student that keeps what the masks do (`None`: the most important units), fitted to the teacher."""
        assert self.search is not None and self._calibration is not None  # noqa: PT018
        calibration = self._calibration()
        return cut_by_masks(self.search.clip, masks or self._most_important(calibration), calibration)

    def _most_important(self, calibration: Calibration) -> dict[Tower, Mask]:
        """Return masks of the target size that keep the most important units."""
        assert self.search is not None and self.stage.prune is not None  # noqa: PT018
        scores = unit_importance(self.search.clip, calibration.pairs)
        masked = {tower: mask for tower, mask in scores.items() if tower in self.search.masks}
        # Rounding may differ between machines, and all workers need the same student.
        return from_first_worker(masks_of_size(masked, self.search.costs, self.search.constraint.target))

    def folded_model(self) -> tuple[Model, AnyLayout]:
        """Return the model to evaluate and its layout; under masks, what they would be folded into now."""
        if self.search is None:
            return self.model, self.layout
        folded = self.search.folded_model()
        return folded, folded.layout

    def sparsity(self) -> float | None:
        """Return the share of the prunable cost removed at the prune step; `None` before it and in other stages."""
        if self.stage.prune is None or self._goal is None or self.search is not None:
            return None
        assert self.stage.original is not None and isinstance(self.layout, Layout)  # noqa: PT018
        return removed_share(self.stage.original, self.layout, self.stage.prune.towers, self._goal.costs)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of a checkpoint; masks are part of it until the prune step."""
        kept = {"model": self.model.state_dict()}
        if self.optimizer is not None:
            kept["optimizer"] = optimizer_tensors(self.optimizer)
        if self.search is not None and self._mask_optimizer is not None:
            kept["masks"] = self.search.masks.state_dict()
            kept["mask_optimizer"] = optimizer_tensors(self._mask_optimizer)
        if self.projection is not None:
            kept["projection"] = self.projection.state_dict()
        if self.average is not None:
            kept["average"] = self.average.tensors()
        return kept

    def restore(self, tensors: dict[str, dict[str, Tensor]], layout: AnyLayout) -> None:
        """Continue from the `tensors()` of a learner whose student had this layout."""
        if self.search is not None and "masks" not in tensors and isinstance(layout, Layout):
            self._end_search(Clip(layout))
        self.model.load_state_dict(tensors["model"])
        if self.projection is not None:
            self.projection.load_state_dict(tensors["projection"])
        if self.optimizer is not None:
            restore_optimizer(self.optimizer, tensors["optimizer"])
        if self.average is not None:
            self.average.restore(tensors.get("average"))
        if self.search is not None and self._mask_optimizer is not None:
            self.search.masks.load_state_dict(tensors["masks"])
            restore_optimizer(self._mask_optimizer, tensors["mask_optimizer"])

    def _start_training(self, model: Model) -> None:
        """Prepare a model for training, with a new optimizer; in a frozen search, for the training of masks only."""
        frozen = self.search is not None and self.stage.prune is not None and self.stage.prune.search != "joint"
        model.to(self._device).requires_grad_(not frozen).train(not frozen)
        if self._temperature is not None:
            # Fixed from the first step on (METHOD F8), and outside the clip norm (F18).
            with torch.no_grad():
                model.logit_scale.fill_(math.log(self._temperature))
            model.logit_scale.requires_grad_(False)
        if not self.stage.objective.uses_logit_scale():
            model.logit_scale.requires_grad_(False)  # data-parallel workers would wait for its gradient
        bias: nn.Parameter | None = getattr(model, "logit_bias", None)
        if bias is not None and not self.stage.objective.uses_logit_bias():
            bias.requires_grad_(False)
        self._acceleration.apply(model)
        # 1.3x faster convolutions on CPU, tensor cores on CUDA
        model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: Model = synchronize_batch_norm(model)
        towers = TwoTowers(model) if self.search is None else self.search
        if self.projection is not None:
            self.projection.requires_grad_(not frozen)  # nothing would clear its gradients, which count in the clip norm
        self.towers = _parallel(towers if self.projection is None else WithProjection(towers, self.projection), self._device)
        self.optimizer = None if frozen else make_optimizer(model, self.stage.optimizer, self.projection)
        averaging = self.stage.averaging
        # Units that a search removes have no place in an average: it starts after the cut.
        self.average = WeightAverage(model, averaging.decay) if averaging and averaging.decay and self.search is None else None

    def _end_search(self, folded: Clip) -> None:
        self.search, self._mask_optimizer, self.layout = None, None, folded.layout
        self._start_training(folded)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for optimizer in (self.optimizer, self._mask_optimizer) if optimizer is not None]


def _masked(model: Model, stage: Stage, prune: PruneSpec, goal: PruneGoal) -> MaskedTowers:
    assert isinstance(model, Clip), "masks are for our own towers"
    assert stage.original is not None, "an automatic stage has the layout that its sparsity is relative to"
    constraint, costs = goal
    return MaskedTowers(
        model, stage.original, prune.towers, constraint, joint=prune.joint, granularity=prune.granularity, costs=costs
    )


def _parallel(towers: nn.Module, device: torch.device) -> nn.Module:
    if world_size() == 1:
        return towers
    ids = [device.index] if device.type == "cuda" else None
    # Our batch norm needs no buffers sent before each forward pass. The option has another name from torch 2.13 on.
    option = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_PARAMETERS else "broadcast_buffers"
    options: dict[str, Any] = {"device_ids": ids, option: False}
    return DistributedDataParallel(towers, **options)
