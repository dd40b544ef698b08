"""The loop of one stage: data in, steps, progress out, checkpoints down, until the last step or a command to stop."""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from open_clip.model import CLIP
from tinyclip.schemas.spec import JobSpec
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinyclip_workers.augment import augment
from tinyclip_workers.batch_norm import synchronize_batch_norm
from tinyclip_workers.checkpoint import Checkpoint, restore_optimizer
from tinyclip_workers.control import Command
from tinyclip_workers.data import Batch, DataPosition
from tinyclip_workers.images import normalize
from tinyclip_workers.losses import rank, world_size
from tinyclip_workers.optim import learning_rate, make_optimizer, set_learning_rate
from tinyclip_workers.stage import Stage
from tinyclip_workers.step import Teacher, TwoTowers, training_loss

log = logging.getLogger(__name__)

MAX_SKIPPED_STEPS = 100
"""So many steps in a row without a finite gradient mean that the run has diverged (METHOD section 4)."""

MAX_LOGIT_SCALE = float(np.log(100))

_DDP_PARAMETERS = inspect.signature(DistributedDataParallel).parameters


class Diverged(RuntimeError):
    """The loss stays infinite or NaN; every worker sees the same number and leaves together."""


@dataclass(frozen=True)
class StepResult:
    """What one step has to tell. `loss` and `terms` are means over the workers."""

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    grad_norm: float
    skipped_samples: int
    finite: bool


@dataclass(frozen=True)
class Hooks:
    """What the loop calls outside itself; each is called on every worker at the same step."""

    command: Callable[[], Command]
    """Asked on worker 0 before each step."""
    progress: Callable[[StepResult], None]
    checkpoint: Callable[["StageTrainer"], None]
    evaluate: Callable[["StageTrainer"], None]


class StageTrainer:
    """One worker's part of a stage: its student, its optimizer, its place in the data."""

    def __init__(
        self,
        spec: JobSpec,
        stage: Stage,
        student: CLIP,
        teacher: Teacher | None,
        device: torch.device,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.spec, self.stage, self.student, self.teacher, self.device = spec, stage, student, teacher, device
        self._mean, self._std = mean, std
        self.step = 0
        self.position = DataPosition()
        self._unusable_in_a_row = 0
        self._set_temperature()
        student.to(device).train()
        student.visual.to(memory_format=torch.channels_last)  # 1.3x faster convolutions on CPU, tensor cores on CUDA
        self._towers = _parallel(TwoTowers(synchronize_batch_norm(student)), device)
        self.optimizer = make_optimizer(student, stage.optimizer)
        self._autocast, self._scaler = precision_of(spec.precision, device)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint as if nothing had happened."""
        self.student.load_state_dict(checkpoint.model)
        restore_optimizer(self.optimizer, checkpoint.optimizer)
        state = checkpoint.state
        self.step = int(state["step"])
        self.position = _position(state["positions"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside weights and moments. Collective: every worker calls it."""
        mine = {"batches": self.position.batches, "shares": {str(k): v for k, v in self.position.shares.items()}}
        positions: list[Any] = [mine] * world_size()
        if world_size() > 1:
            dist.all_gather_object(positions, mine)
        return {"positions": positions, "scaler": self._scaler.state_dict() if self._scaler.is_enabled() else {}}

    def run(self, batches: Iterator[Batch], hooks: Hooks) -> Command:
        """Train to the end of the stage. Returns RUN when it is reached, else the command that stopped it."""
        while self.step < self.stage.steps:
            batch = next(batches)
            result, command = self.train_step(batch, hooks.command() if rank() == 0 else Command.RUN)
            hooks.progress(result)
            last = self.step == self.stage.steps
            if command >= Command.CANCEL:
                return command
            if command is Command.PAUSE or last or self.step % self.spec.checkpoint.every_steps == 0:
                hooks.checkpoint(self)
            if command is Command.PAUSE and not last:
                return command
            every = self.spec.evaluation.every_steps
            if every and not last and self.step % every == 0:
                hooks.evaluate(self)
                self.student.train()
        return Command.RUN

    def train_step(self, batch: Batch, command: Command = Command.RUN) -> tuple[StepResult, Command]:
        """One optimizer step on this worker's part of the global batch; all workers agree on what comes next."""
        lr = learning_rate(self.step, self.stage.steps, self.stage.optimizer)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        images_BCHW, tokens_BT = self.prepare(batch)
        loss, terms = self._learn(images_BCHW, tokens_BT)
        grad_norm = self._update()
        self.position.advance(batch)
        self.step += 1
        told = _mean_over_workers([loss, *terms.values()], command)
        result = StepResult(
            step=self.step,
            loss=told[0],
            terms=dict(zip(terms, told[1:-1], strict=True)),
            lr=lr,
            grad_norm=grad_norm,
            skipped_samples=batch.skipped.samples,
            finite=bool(np.isfinite(grad_norm)),
        )
        self._give_up_if_diverged(result)
        return result, Command(int(told[-1]))

    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pixels to the device, varied and normalised; random draws depend on (seed, stage, step, worker) alone."""
        seed = np.random.SeedSequence([self.spec.seed, self.stage.index, self.step, rank()]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        images = batch.images_BCHW.to(self.device, non_blocking=True)
        varied_BCHW = augment(images, self.spec.data.train.augment, generator)
        images_BCHW = normalize(varied_BCHW, self._mean, self._std).contiguous(memory_format=torch.channels_last)
        return images_BCHW, batch.tokens_BT.to(self.device, non_blocking=True)

    def _learn(self, images_BCHW: Tensor, tokens_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Teacher, student, loss and gradients."""
        with self._autocast():
            loss, terms = training_loss(self._towers, self.teacher, images_BCHW, tokens_BT, self.stage.objective.model_dump())
        self._scaler.scale(loss).backward()
        return loss, terms

    def _update(self) -> float:
        """Clip, step, keep the temperature in its bounds. A gradient that is not finite on any worker changes nothing."""
        self._scaler.unscale_(self.optimizer)
        parameters = [p for p in self.student.parameters() if p.grad is not None]
        clip_norm = self.stage.optimizer.clip_norm
        # Gradients are already averaged, so every worker sees the same norm and takes the same decision.
        grad_norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm is not None else float("inf")))
        if np.isfinite(grad_norm):
            self._scaler.step(self.optimizer)
            with torch.no_grad():
                self.student.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self._scaler.update()
        return grad_norm

    def _set_temperature(self) -> None:
        fixed = self.spec.temperature.student
        if fixed == "learned":
            return
        # Fixed from the first step on (METHOD F8), and outside the clip norm (F18).
        with torch.no_grad():
            self.student.logit_scale.fill_(float(np.log(fixed)))
        self.student.logit_scale.requires_grad_(False)

    def _give_up_if_diverged(self, result: StepResult) -> None:
        self._unusable_in_a_row = 0 if result.finite else self._unusable_in_a_row + 1
        if self._unusable_in_a_row > MAX_SKIPPED_STEPS:
            raise Diverged(
                f"no finite gradient in {MAX_SKIPPED_STEPS} steps before step {result.step} of stage {self.stage.name}; "
                f"lower optimizer.lr (now {self.stage.optimizer.lr:g}) or lengthen optimizer.warmup_steps"
            )


def precision_of(precision: str, device: torch.device) -> tuple[Callable[[], AbstractContextManager[Any]], torch.amp.GradScaler]:
    """Autocast and gradient scaler for a spec's precision. `auto`: bf16 where CUDA has it in hardware, else fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    if precision == "fp32":
        return nullcontext, scaler
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype), scaler


def _parallel(towers: TwoTowers, device: torch.device) -> nn.Module:
    if world_size() == 1:
        return towers
    ids = [device.index] if device.type == "cuda" else None
    # Our batch norm agrees by itself: nothing to send before each forward. torch 2.13 gave the switch another name.
    switch = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_PARAMETERS else "broadcast_buffers"
    options: dict[str, Any] = {"device_ids": ids, switch: False}
    return DistributedDataParallel(towers, **options)


def _mean_over_workers(values: list[Tensor], command: Command) -> list[float]:
    """Means of scalars, and worker 0's command behind them, in one collective."""
    told = torch.stack([*(v.detach().float().reshape(()) for v in values), values[0].new_tensor(float(command)).float()])
    if world_size() > 1:
        dist.all_reduce(told)
        told[:-1] /= world_size()
    return [float(v) for v in told]


def _position(positions: list[dict[str, Any]]) -> DataPosition:
    """This worker's place in the data. With another number of workers than before, all start the next epoch."""
    if len(positions) == world_size():
        mine = positions[rank()]
        return DataPosition(mine["batches"], {int(k): (v[0], v[1]) for k, v in mine["shares"].items()})
    epochs = [share[0] for worker in positions for share in worker["shares"].values()]
    return DataPosition(0, {share: (max(epochs, default=0) + 1, 0) for share in range(64)})
