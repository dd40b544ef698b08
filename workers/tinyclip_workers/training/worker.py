"""One stage on one worker of the group: build, restore, train, evaluate, and store the student for the next stage."""

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import ray.train
import ray.train.torch
import torch
from safetensors.torch import save as to_safetensors

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.reinforcement.check import check_reinforcement
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader, loader_processes
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.evaluation.predictions import PredictedTasks
from tinyclip_workers.inheritance.leading import ImpossibleInheritance
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.layouts import ImpossibleStudent
from tinyclip_workers.model.rotation import rotated_model
from tinyclip_workers.model.towers import length_multiple, trims_padding
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt, Outcome
from tinyclip_workers.runtime.control import Command, ControlFile
from tinyclip_workers.runtime.events import EventWriter, log_to_events
from tinyclip_workers.training.acceleration import fast_kernels
from tinyclip_workers.training.auto_settings.selection import AutoSettings
from tinyclip_workers.training.checkpoints import Checkpoint, latest_checkpoint, remove_old_checkpoints, save_checkpoint
from tinyclip_workers.training.clusters import ClustersError
from tinyclip_workers.training.dataset import open_index_of
from tinyclip_workers.training.distributed import prepare_to_wait, rank, wait_for_all, world_size
from tinyclip_workers.training.gpu_share import take_share
from tinyclip_workers.training.observation.reporting import StageEvaluator, StageProgress, report_pruned
from tinyclip_workers.training.observation.watch import AgreementWatch
from tinyclip_workers.training.pieces import Pieces, load_pieces
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.teachers.stored import StoredTargets, open_reinforcement, verify_stored
from tinyclip_workers.training.trainer import Diverged, Hooks, StageTrainer, StepResult

log = logging.getLogger(__name__)

ERROR_CODES: dict[type[Exception], str] = {
    ClustersError: "unusable_clusters",
    DataError: "unusable_data",
    Diverged: "diverged",
    ImpossibleInheritance: "impossible_student",
    ImpossibleStudent: "impossible_student",
    TeacherError: "unusable_teacher",
}
NON_RETRYABLE_ERRORS = tuple(ERROR_CODES)


def error_code(error: Exception) -> str:
    """Return the stable code of a non-retryable error."""
    return next(code for kind, code in ERROR_CODES.items() if isinstance(error, kind))


def train_stage_worker(config: dict[str, Any]) -> None:
    """Train a stage as a worker of Ray Train. `config`: artifacts, job, attempt, stage (from `Stage.to_json`), group.

    Called again when the group is restarted, and continues from the last checkpoint. A non-retryable error is stored as the
    attempt's outcome before it is raised, so that a restarted group returns at once.
    """
    run = JobAttempt.open(config["artifacts"], config["job"], config["attempt"])
    stage = Stage.from_json(config["stage"])
    if run.outcome() or run.finished_stage(stage.index) or run.control().read() is Command.FENCED:
        return
    torch.set_num_threads(max(1, int(run.spec.resources.cpus_per_worker)))
    device = ray.train.torch.get_device()
    take_share(device, run.spec.resources.gpus_per_worker)
    try:
        StageWorker(run, stage, device, config["group"]).train()
    except NON_RETRYABLE_ERRORS as error:
        run.set_outcome(Outcome("failed", error_code(error), str(error)))
        if world_size() > 1:
            raise  # the others wait in a collective: Ray must end the group


class StageWorker:
    """One stage on one worker."""

    def __init__(self, run: JobAttempt, stage: Stage, device: torch.device, group: str = "") -> None:
        """`group`: the name of an elastic group."""
        prepare_to_wait()
        self._run, self._stage, self._device = run, stage, device
        self._control: ControlFile = run.control(group)
        self._events: EventWriter | None = run.events() if rank() == 0 else None
        self._index: DatasetIndex = open_index_of(run)
        self._reinforcement = open_reinforcement(run, stage)
        self._watch: AgreementWatch | None = None
        """On worker 0, if there is a teacher."""

    def train(self) -> None:
        """Build, restore, train, evaluate, and store the student."""
        logged = log_to_events(self._events, f"stage {self._stage.name}") if self._events else nullcontext()
        with logged, fast_kernels(self._run.spec.precision, self._device):
            self._train()

    def _train(self) -> None:
        checkpoint = latest_checkpoint(self._run.store, self._run.stage_folder(self._stage.index))
        fresh, first_only = checkpoint is None, self._reinforcement is not None and rank() > 0
        pieces = load_pieces(self._run, self._stage, self._index, self._device, fresh=fresh, first_only=first_only)
        stored = self._stored_targets(pieces)
        wait_for_all()  # teachers may be downloaded at different speeds
        trainer = StageTrainer(
            self._run.spec,
            self._stage,
            pieces.student.model,
            pieces.teachers if stored else [teacher.to(self._device) for teacher in pieces.teachers],
            self._device,
            mean=pieces.student.image_mean,
            std=pieces.student.image_std,
            calibration=pieces.calibration,
            stored=stored,
            axes_EE=pieces.axes_EE,
        )
        if self._events and pieces.teachers:
            spec, student = self._run.spec, pieces.student
            self._watch = AgreementWatch(spec, self._stage, student, pieces.teachers, self._device, self._events)
        trainer.position = self._first_position()
        if checkpoint is not None:
            self._restore(trainer, checkpoint)
        batches = self._batches(trainer, pieces.student)
        if checkpoint is None:
            batches = self._auto_settings().select_precision(trainer, batches)
            batches = self._auto_settings().select_micro_batch(trainer, batches)
        log.info(
            "training %s from step %d to %d in %s on %s, %d workers, %d threads each",
            self._stage.name, trainer.step, self._stage.steps, trainer.precision.name, self._device, world_size(),
            torch.get_num_threads(),
        )  # fmt: skip
        evaluator = StageEvaluator(self._run, self._stage, pieces.original, self._device, self._events)
        hooks = self._hooks(trainer, pieces.student, evaluator)
        if self._watch and trainer.step == 0:
            self._watch.begin(trainer.learner, 0)
        wait_for_all()
        stopped = trainer.run(batches, hooks)
        if stopped is not Command.RUN:
            self._stop(stopped, trainer.step)
            return
        if rank() == 0:
            student = current_student(pieces.student, trainer)
            student = replace(student, model=self._watch.end(trainer.learner)) if self._watch else student
            self._finish(student, evaluator, trainer)

    def _stored_targets(self, pieces: Pieces) -> StoredTargets | None:
        """Check and verify the reinforcement; None without one. Raises DataError."""
        if self._reinforcement is None:
            return None
        spec, document = self._run.spec, self._reinforcement.document
        shared = any(teacher.reading.text is None for teacher in pieces.teachers)
        lengths = [pieces.student.layout.context_length] if shared else []
        check_reinforcement(document, spec, self._run.document.dataset, pieces.described, lengths)
        if rank() == 0:
            verify_stored(self._reinforcement, spec, self._index, pieces.student, pieces.teachers, self._device)
        used = document.teachers if self._stage.objective.uses_every_teacher() else document.teachers[:1]
        return StoredTargets(used, spec.temperature.teacher, self._device)

    def _first_position(self) -> DataPosition:
        """Return where the stage starts in the data: where the previous one ended."""
        index, batch_size = self._stage.index, self._stage.batch_size
        return DataPosition.from_json(self._run.position_after_stage(index - 1) if index else None, batch_size)

    def _restore(self, trainer: StageTrainer, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        trainer.restore(checkpoint)
        if lr := checkpoint.state.get("lr"):
            trainer.use_rate(lr)
        if self._watch:
            self._watch.restore(checkpoint.state.get("agreement"))
        if self._events:
            self._events.send(
                "worker.restarted",
                stage=self._stage.index,
                data={"step": trainer.step, "checkpoint": checkpoint.path},
                message=f"stage {self._stage.name} continues from step {trainer.step}",
            )

    def _batches(self, trainer: StageTrainer, student: LoadedModel) -> Any:
        workers, batch_size = world_size(), self._stage.batch_size
        if batch_size % workers:
            raise DataError(
                f"batch_size {batch_size} does not divide over {workers} workers; make it a multiple",
                field="batch_size",
                value=batch_size,
            )
        stream = PairStream(
            self._run.spec.data,
            self._index,
            batch_size=batch_size,
            image_size=self._stage.layout.image_size,
            tokenize=SingleTextTokenizer(student.tokenizer),
            seed=self._run.spec.seed,
            rank=rank(),
            world_size=workers,
            start=trainer.position,
            text_multiple=length_multiple(self._device),
            stored=self._reinforcement,
            trims=trims_padding(student.model),
            teacher_inputs=trainer.prepare.teacher_inputs,
        )
        processes = loader_processes(self._run.spec.resources.cpus_per_worker)
        return iter(BatchLoader(stream, processes, pin=self._device.type == "cuda"))

    def _hooks(self, trainer: StageTrainer, student: LoadedModel, evaluator: StageEvaluator) -> Hooks:
        progress = StageProgress(self._stage, trainer.step, self._events, job=self._run.document)
        return Hooks(
            command=self._control.poll,
            progress=lambda result: self._report(progress, result, trainer),
            checkpoint=self._checkpoint,
            evaluate=lambda t: self._evaluate(evaluator, student, t),
            pruned=self._pruned,
            select_rate=self._auto_settings().select_rate,
        )

    def _auto_settings(self) -> AutoSettings:
        return AutoSettings(self._run, self._stage, self._events, self._watch)

    def _report(self, progress: StageProgress, result: StepResult, trainer: StageTrainer) -> None:
        progress.step(result)
        if self._watch:
            self._watch.after_step(trainer.learner, trainer.step)

    def _evaluate(self, evaluator: StageEvaluator, student: LoadedModel, trainer: StageTrainer) -> None:
        if rank() == 0:
            current = nested_student(current_student(student, trainer), trainer)
            evaluator.evaluate(current, trainer.step, trainer.nesting.axes_EE)

    def _pruned(self, trainer: StageTrainer) -> None:
        if self._events:
            report_pruned(self._run, self._stage, trainer, self._events)
        if self._watch:
            self._watch.begin(trainer.learner, trainer.step)

    def _checkpoint(self, trainer: StageTrainer) -> None:
        """Write a checkpoint on worker 0, unless a newer attempt has superseded this one. Collective."""
        state = trainer.state() | ({"agreement": self._watch.state()} if self._watch else {})
        if self._stage.optimizer.lr == "auto" != trainer.stage.optimizer.lr:
            state["lr"] = trainer.stage.optimizer.lr
        if rank() == 0 and self._control.read() is not Command.FENCED:
            folder = self._run.checkpoint_folder(self._stage.index)
            path, size = save_checkpoint(self._run.store, folder, trainer.step, trainer.tensors(), state)
            remove_old_checkpoints(self._run.store, folder, self._run.spec.checkpoint.keep)
            if self._events:
                data = {"step": trainer.step, "path": path, "bytes": size}
                self._events.send("checkpoint", stage=self._stage.index, data=data, message=f"checkpoint at step {trainer.step}")
        ray.train.report({"stage": self._stage.index, "step": trainer.step})

    def _stop(self, command: Command, step: int) -> None:
        if rank() == 0 and command in (Command.PAUSE, Command.CANCEL):
            self._run.set_outcome(Outcome(command.name.lower(), step=step))
        if self._events:
            self._events.flush()

    def _finish(self, student: LoadedModel, evaluator: StageEvaluator, trainer: StageTrainer) -> None:
        assert self._events is not None
        self._events.send("stage.evaluating", stage=self._stage.index, message=f"evaluating stage {self._stage.name}")
        predicted: PredictedTasks | None = {} if self._stage.index == len(self._run.spec.stages) - 1 else None
        axes_EE = trainer.nesting.axes_EE
        evaluation = evaluator.evaluate(nested_student(student, trainer), self._stage.steps, axes_EE, predicted)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in student.model.state_dict().items()}
        if self._control.read() is not Command.FENCED:
            finished = FinishedStudent(
                student.layout, to_safetensors(weights), evaluation, trainer.position.to_json(self._stage.batch_size),
                student.tokenizer_files, axes_EE, {task: found.pack() for task, found in (predicted or {}).items()},
            )
            self._run.finish_stage(self._stage.index, finished)
            self._events.send("stage.finished", stage=self._stage.index, message=f"stage {self._stage.name} finished")
        log.debug("evaluation of stage %s: %s", self._stage.name, json.dumps(evaluation))


def current_student(start: LoadedModel, trainer: StageTrainer) -> LoadedModel:
    """Return the student as it is now; under masks, what they would be folded into."""
    model, layout = trainer.learner.folded_model()
    return replace(start, model=model, layout=layout)


def nested_student(student: LoadedModel, trainer: StageTrainer) -> LoadedModel:
    """Return the student with nested embeddings, if the stage trains them: on the principal axes of its teacher's."""
    nesting = trainer.nesting
    model = student.model if nesting.axes_EE is None else rotated_model(student.model, nesting.axes_EE)
    return replace(student, model=model, embedding_sizes=tuple(nesting.sizes))
