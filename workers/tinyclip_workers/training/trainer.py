"""The loop of one stage, up to its last step or a command to stop, and the training step."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import JobSpec
from torch import Tensor

from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.inheritance.students import Calibration
from tinyclip_workers.model.architecture import any_layout
from tinyclip_workers.model.masked import kept_units
from tinyclip_workers.model.precision import precision_of
from tinyclip_workers.model.preprocessing import Color
from tinyclip_workers.model.sparsity import SparsityPenalty
from tinyclip_workers.model.towers import Model
from tinyclip_workers.model.transfer import on_device
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training.acceleration import Acceleration
from tinyclip_workers.training.checkpoints import Checkpoint
from tinyclip_workers.training.clusters import load_clusters
from tinyclip_workers.training.distributed import rank, read_scalars, wait_for_all
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.objective.losses import StudentEmbeddings
from tinyclip_workers.training.objective.nested import Nesting, nested_terms
from tinyclip_workers.training.objective.projection import Projection, fit_projection
from tinyclip_workers.training.objective.terms import EmbeddedBatch, weighted_sum
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher, teachers_forward
from tinyclip_workers.training.teachers.inputs import InputPreparation
from tinyclip_workers.training.teachers.stored import StoredTargets

MAX_SKIPPED_STEPS = 100
"""A run with more steps in a row without a finite gradient has diverged (METHOD section 4)."""
NESTING = "nesting"
"""The name of the principal axes among the tensors of a checkpoint."""


class Diverged(RuntimeError):
    """A loss that stays infinite or NaN. All workers compute the same number and raise at the same step."""


@dataclass(frozen=True)
class StepResult:
    """The numbers of one step. `loss` and `terms` are means over the workers."""

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    grad_norm: float
    skipped_samples: int
    finite: bool
    sparsity: dict[str, float] = field(default_factory=dict)
    """In an automatic stage `sparsity`: under masks the expected one, with the `target_sparsity` of the step; after the prune
    step the actual one, with the shares of channels, heads and MLP units that each tower has kept."""


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the loop, called on every worker at the same step. While worker 0 does more in one, the others wait."""

    command: Callable[[], Command]
    """Called on worker 0 before each step."""
    progress: Callable[[StepResult], None]
    checkpoint: Callable[["StageTrainer"], None]
    evaluate: Callable[["StageTrainer"], None]
    pruned: Callable[["StageTrainer"], None] = lambda _: None
    """Called after the prune step of an automatic stage; after a resumption perhaps again."""
    select_rate: Callable[["StageTrainer", Iterator[Batch]], Iterator[Batch]] = lambda _, batches: batches
    """Called before the first step and after the prune step with the batches to come; returns the batches to train on."""


class StageTrainer:
    """One worker's part of a stage: its student, its teachers or their stored embeddings, its position in the data."""

    def __init__(
        self,
        spec: JobSpec,
        stage: Stage,
        student: Model,
        teachers: Sequence[FrozenTeacher],
        device: torch.device,
        *,
        mean: Color,
        std: Color,
        calibration: Callable[[], Calibration] | None = None,
        stored: StoredTargets | None = None,
        axes_EE: Tensor | None = None,
    ) -> None:
        """`teachers` are on the device, unless their `stored` embeddings come with the batches: then no step uses them.

        `axes_EE`: of a new stage with nested embeddings, the principal axes of its teacher's.
        """
        self.spec, self.stage, self.device = spec, stage, device
        used = bool(stage.objective.teacher_terms())
        self.teachers = list(teachers) if used and stored is None else []
        self._stored = stored if used else None
        self._first_teacher = teachers[0] if teachers else None
        self._weights = stage.objective.weights()
        readings = [teacher.reading for teacher in self.teachers]
        self.prepare = InputPreparation((mean, std), readings, spec.data.train.augment, device)
        self.nesting = Nesting(stage.embedding_sizes, None if axes_EE is None else axes_EE.to(device))
        self.step = 0
        self.position = DataPosition()
        self._skipped_in_a_row = 0
        self.precision = precision_of(spec.precision, device)
        self.micro_batch = None if spec.micro_batch == "auto" else spec.micro_batch
        temperature = spec.temperature.student
        fixed = None if temperature == "learned" else temperature
        for teacher in self.teachers:
            Acceleration(compile=spec.compile).apply(teacher.towers.clip)
        self._calibration, self._is_new = calibration, True
        extras = self._projection(), Acceleration.of(spec), calibration
        self.learner = StageLearner(student, stage, fixed, device, *extras)
        self._clusters_KE = None
        if stage.objective.clusters is not None and stage.objective.cluster_instance > 0:
            self._clusters_KE = load_clusters(stage.objective.clusters).to(device)

    @property
    def student(self) -> Model:
        """The model in training; the prune step replaces it."""
        return self.learner.model

    def _projection(self) -> Projection | None:
        """Make a projection for a stage that compares embeddings with a teacher's of another size."""
        if self._first_teacher is None or not self.stage.objective.teacher_space_terms():
            return None
        embed_dim, teacher_embed_dim = self.stage.layout.embed_dim, self._first_teacher.embed_dim
        if embed_dim == teacher_embed_dim:
            return None
        return Projection(embed_dim, teacher_embed_dim, self.spec.seed + self.stage.index, self.stage.embedding_sizes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue exactly from a checkpoint."""
        self._is_new = False
        state = checkpoint.state
        self.learner.restore(checkpoint.tensors, any_layout(state["layout"]) if "layout" in state else self.stage.layout)
        if NESTING in checkpoint.tensors:
            self.nesting = replace(self.nesting, axes_EE=checkpoint.tensors[NESTING]["axes"].to(self.device))
        self.step = int(state["step"])
        self.position = DataPosition.from_json(state.get("position", state), self.stage.batch_size)
        self._skipped_in_a_row = 0
        if self.spec.precision == "auto" and "precision" in state:
            self.precision = precision_of(state["precision"], self.device)
        if self.spec.micro_batch == "auto":
            self.micro_batch = state["micro_batch"]
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])

    def use_rate(self, lr: float) -> None:
        """Train at a rate that was selected for `optimizer.lr: auto`."""
        optimizer = self.stage.optimizer.model_copy(update={"lr": lr})
        self.stage = self.learner.stage = replace(self.stage, optimizer=optimizer)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of a checkpoint."""
        axes_EE = self.nesting.axes_EE
        return {**self.learner.tensors(), **({} if axes_EE is None else {NESTING: {"axes": axes_EE}})}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides `tensors()`."""
        scaler = self.precision.scaler
        return {
            "position": self.position.to_json(self.stage.batch_size),
            "precision": self.precision.name,
            "micro_batch": self.micro_batch,
            "scaler": scaler.state_dict() if scaler.is_enabled() else {},
            "layout": self.learner.layout.model_dump(mode="json"),
        }

    def run(self, batches: Iterator[Batch], hooks: Hooks) -> Command:
        """Train to the end of the stage. Returns RUN at the end, else the command that stopped the loop."""
        if self._is_new and self.learner.projection is not None and self._calibration is not None:
            assert self._first_teacher is not None
            with on_device([self._first_teacher.towers], self.device):
                found = self._calibration()
                pairs = found.pairs, found.teacher_pairs or found.pairs
                fit_projection(self.learner.projection, self.student, self._first_teacher, *pairs)
        batches = hooks.select_rate(self, batches)
        while self.step < self.stage.steps:
            if self.learner.prune_if_due(self.step):
                hooks.pruned(self)
                wait_for_all()
                batches = hooks.select_rate(self, batches)
            batch = next(batches)
            result, command = self.train_step(batch, hooks.command() if rank() == 0 else Command.RUN)
            hooks.progress(result)
            last, stops = self.step == self.stage.steps, command in (Command.REGROUP, Command.PAUSE)
            if command >= Command.CANCEL:
                return command
            if stops or last or self.step % self.spec.checkpoint.every_steps == 0:
                hooks.checkpoint(self)
                wait_for_all()
            if stops and not last:
                return command
            every = self.spec.evaluation.every_steps
            if every and not last and self.step % every == 0:
                hooks.evaluate(self)
                wait_for_all()
        return Command.RUN

    def train_step(self, batch: Batch, command: Command = Command.RUN) -> tuple[StepResult, Command]:
        """Take one optimizer step on this worker's part of the global batch. Collective.

        Returns the result and the `command` of worker 0, the same on all workers; the others' must be RUN, which is 0.
        """
        lr = self.learner.start_step(self.step)
        inputs = self.prepare(batch)
        noise, penalty = self.learner.noise(self._mask_seed()), self.learner.sparsity_penalty(self.step)
        precision, micro_batch = self.precision, self.micro_batch
        cache = GradientCache(self.learner.towers, precision, micro_batch)

        if self._stored is None:
            teachers = teachers_forward(self.teachers, inputs.teachers, precision, micro_batch)
        else:
            teachers = self._stored.embeddings(batch)
        student = StudentEmbeddings(*cache.forward(*inputs.student, noise))
        terms = nested_terms(self._weights, EmbeddedBatch(student, teachers, self._clusters_KE), self.nesting)
        loss = cache.backward(weighted_sum(self._weights, terms), None if penalty is None else penalty.loss)

        norm = self.learner.clip_gradients(precision.scaler)
        alike = [norm] if penalty is None else [norm, penalty.expected_sparsity]
        means, (grad_norm, *expected_sparsity), commands = read_scalars([loss, *terms.values()], alike, command)
        finite = math.isfinite(grad_norm)
        self.learner.update(precision.scaler, finite=finite)
        self.position = batch.position
        self.step += 1
        result = StepResult(
            step=self.step,
            loss=means[0],
            terms=dict(zip(terms, means[1:], strict=True)),
            lr=lr,
            grad_norm=grad_norm,
            skipped_samples=batch.skipped.samples,
            finite=finite,
            sparsity=self._sparsity() if penalty is None else _under_masks(expected_sparsity[0], penalty),
        )
        self._raise_if_diverged(result)
        return result, Command(int(commands))

    def _mask_seed(self) -> int:
        """Return the seed of a step's draws for masks: the same on all workers, however many there are."""
        return int(np.random.SeedSequence([self.spec.seed, self.stage.index, self.step]).generate_state(1)[0])

    def _sparsity(self) -> dict[str, float]:
        real, layout = self.learner.sparsity(), self.learner.layout
        if real is None or not isinstance(layout, Layout):
            return {}
        return {"sparsity": real, **kept_units(layout, self.stage.original)}

    def _raise_if_diverged(self, result: StepResult) -> None:
        self._skipped_in_a_row = 0 if result.finite else self._skipped_in_a_row + 1
        if self._skipped_in_a_row > MAX_SKIPPED_STEPS:
            raise Diverged(
                f"no finite gradient in {MAX_SKIPPED_STEPS} steps before step {result.step} of stage {self.stage.name}; "
                f"lower optimizer.lr (now {self.stage.optimizer.lr}) or lengthen optimizer.warmup_steps"
            )


def _under_masks(expected: float, penalty: SparsityPenalty) -> dict[str, float]:
    return {"sparsity": expected, "target_sparsity": penalty.target_sparsity}
