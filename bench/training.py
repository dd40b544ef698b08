"""A job's stages in this process, with the loop of its workers but without Ray, for the benches that train."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from rich.progress import track
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import EvaluationTask
from tinyclip_workers.data.index.dataset_index import DatasetIndex, index_shards
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import trims_padding
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training.calibration import calibration_of, teacher_calibration
from tinyclip_workers.training.objective.nested import principal_axes
from tinyclip_workers.training.stage import Parent, Stage, build_student, resolve_stage
from tinyclip_workers.training.teachers.frozen import freeze_teachers
from tinyclip_workers.training.teachers.stored import StoredTargets
from tinyclip_workers.training.trainer import Hooks, StageTrainer
from torch import Tensor

CPU = torch.device("cpu")
Scores = dict[str, dict[str, float]]
"""Metrics that are fractions or durations, by task."""


@dataclass(frozen=True)
class Trained:
    """The student of one stage."""

    stage: Stage
    student: LoadedModel
    seconds: float
    """CPU time of training in this process, without evaluations."""
    axes_EE: Tensor | None = None
    """Axes that the embeddings of the student are to be rotated onto, if they are nested."""


@dataclass(frozen=True)
class Snapshot:
    """The student in the middle of a run."""

    step: int
    """Step of the whole run, including all previous stages."""
    seconds: float
    """As `Trained.seconds`, from the start of the run."""
    student: LoadedModel


def run_stages(
    spec: JobSpec,
    original: LoadedModel | None,
    title: str,
    observe: Callable[[Snapshot], None],
    *,
    index: DatasetIndex | None = None,
    stored: StoredReinforcement | None = None,
    first: LoadedModel | None = None,
) -> Iterator[Trained]:
    """Train the stages of a spec one after the other.

    `observe` is called before the first step of each, and then every `evaluation.every_steps` steps. `index`: of the shards, if
    they are indexed already. `stored`: train from these embeddings. `first`: what the first stage inherits from, instead of the
    teacher.
    """
    index = index or index_shards(spec.data.train)
    before = first or original
    parent = before.layout if before else None
    last: Stage | None = None
    past = _Past()
    for number in range(len(spec.stages)):
        stage = resolve_stage(spec, number, parent, last, spec.data.train.samples or 0)
        if stage.steps == 0:
            raise ValueError("lengths in epochs need data.train.samples here: nothing counts the pairs")
        run = _StageRun(spec, stage, before, original, past, observe, index, stored)
        trained = run.train(f"{title} · {stage.name}")
        past = _Past(past.steps + stage.steps, past.seconds + trained.seconds, run.end(), trained.axes_EE)
        before, parent, last = trained.student, trained.student.layout, stage
        yield trained


class _Past(NamedTuple):
    """Steps and seconds of the previous stages, and where they ended in the data."""

    steps: int = 0
    seconds: float = 0.0
    end: dict[str, Any] | None = None
    axes_EE: Tensor | None = None


class _StageRun:
    def __init__(
        self,
        spec: JobSpec,
        stage: Stage,
        before: LoadedModel | None,
        original: LoadedModel | None,
        past: _Past,
        observe: Callable[[Snapshot], None],
        index: DatasetIndex,
        stored: StoredReinforcement | None,
    ) -> None:
        self._start = time.process_time()
        parent = Parent(before.model.state_dict(), before.layout) if before and stage.inherit != "none" else None
        self._stage, self._past, self._observe = stage, past, observe
        self._observing = 0.0
        self._tokenizer = make_tokenizer(stage.layout)
        self._mean, self._std = (original.image_mean, original.image_std) if original else (OPENAI_MEAN, OPENAI_STD)
        student = build_student(stage, spec.seed, None)
        start = LoadedModel(student, stage.layout, self._tokenizer, self._mean, self._std, name=stage.name, digest="")
        calibration = calibration_of(spec, index, stage.index, start, parent, original) if parent else None
        axes_EE = None
        if stage.embedding_sizes and original is not None and original.layout.embed_dim == stage.layout.embed_dim:
            targets = (calibration or teacher_calibration(spec, index, stage.index, start, original, CPU))().targets
            axes_EE = past.axes_EE if past.axes_EE is not None else principal_axes(chain(*targets.values()))
        self._trainer = StageTrainer(
            spec,
            stage,
            build_student(stage, spec.seed, parent, calibration),
            freeze_teachers([original], [1.0], spec.temperature.teacher, start) if original else [],
            CPU,
            mean=self._mean,
            std=self._std,
            calibration=calibration,
            stored=StoredTargets(stored.document.teachers, spec.temperature.teacher, CPU) if stored else None,
            axes_EE=axes_EE,
        )
        self._trainer.position = DataPosition.from_json(past.end, stage.batch_size)
        self._stream = PairStream(
            spec.data,
            index,
            batch_size=stage.batch_size,
            image_size=stage.layout.image_size,
            tokenize=lambda text: self._tokenizer(text)[0],
            seed=spec.seed,
            start=self._trainer.position,
            trims=trims_padding(student),
            teacher_inputs=self._trainer.prepare.teacher_inputs,
            stored=stored,
        )

    def train(self, title: str) -> Trained:
        self._trainer.learner.prune_if_due(0)  # a student by importance is cut before its first step
        self._evaluate(self._trainer)
        batches = iter(BatchLoader(self._stream, 1))
        hooks = Hooks(
            command=lambda: Command.RUN, progress=lambda _: None, checkpoint=lambda _: None, evaluate=self._evaluate
        )  # fmt: skip
        self._trainer.run(_shown(batches, self._stage.steps, title), hooks)
        return Trained(self._stage, self._student(), self._seconds(), self._trainer.nesting.axes_EE)

    def end(self) -> dict[str, Any]:
        """Return where the stage ended in the data."""
        return self._trainer.position.to_json(self._stage.batch_size)

    def _evaluate(self, trainer: StageTrainer) -> None:
        before = time.process_time()
        self._observe(Snapshot(self._past.steps + trainer.step, self._past.seconds + self._seconds(), self._student()))
        self._observing += time.process_time() - before

    def _seconds(self) -> float:
        return time.process_time() - self._start - self._observing

    def _student(self) -> LoadedModel:
        learner = self._trainer.learner
        model, layout = learner.folded_model()
        if learner.average is not None:
            model = learner.average.averaged(model)
        return LoadedModel(model, layout, self._tokenizer, self._mean, self._std, name=self._stage.name, digest="")


def teacher_of(spec: JobSpec) -> LoadedModel | None:
    return load_teacher(spec.teacher) if spec.teacher else None


def scores_of(model: LoadedModel, spec: JobSpec, tasks: list[EvaluationTask] | None = None) -> Scores:
    """Evaluate one model on the spec's tasks, or some of them."""
    chosen = spec.evaluation.tasks if tasks is None else tasks
    found = evaluate_tasks({"it": model}, chosen, holdout=spec.data.train.holdout)
    return {task: _numbers(scores["it"]) for task, scores in found.items()}


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items() if isinstance(value, float)}


def _shown(batches: Iterator[Batch], steps: int, title: str) -> Iterator[Batch]:
    yield from (batch for batch, _ in zip(batches, track(range(steps), description=title), strict=False))
