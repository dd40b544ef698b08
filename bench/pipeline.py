"""Where a training step's time goes: `python bench/pipeline.py [SPEC.yaml] [--stage 1] [--steps 30] [--threads 2]`.

Runs a stage of a spec in this process, with the same loader, student, teacher and step as a job, and prints the share of wall
time that each phase takes. By default the last stage of the demo, whose student is cut straight from the teacher.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.data.stream import Batch, PairStream, count_pairs, make_loader
from tinyclip_workers.model.folders import LoadedModel, make_tokenizer
from tinyclip_workers.model.sources import load_teacher
from tinyclip_workers.model.sparsity import Pull
from tinyclip_workers.training.begin import Parent, begin_student
from tinyclip_workers.training.losses import Embeddings
from tinyclip_workers.training.stage import resolve_stages
from tinyclip_workers.training.step import FrozenTeacher
from tinyclip_workers.training.trainer import StageTrainer
from torch import Tensor

WARM_UP = 5
PHASES = (
    "wait for data",
    "augment and normalise",
    "teacher forward",
    "student forward and backward",
    "clip and optimizer",
    "everything else",
)
EXAMPLE = Path(__file__).parents[1] / "examples" / "emoji" / "half.yaml"


class Clock:
    """Seconds by phase; the teacher's are part of `teacher and student`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start


class TimedTeacher:
    def __init__(self, teacher: FrozenTeacher, clock: Clock) -> None:
        self._teacher, self._clock, self.embed_dim = teacher, clock, teacher.embed_dim

    def __call__(self, images_BCHW: Tensor, tokens_BT: Tensor) -> Embeddings:
        with self._clock.phase("teacher forward"):
            return self._teacher(images_BCHW, tokens_BT)


class TimedTrainer(StageTrainer):
    clock: Clock

    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with self.clock.phase("augment and normalise"):
            return super().prepare(batch)

    def _learn(self, images_BCHW: Tensor, tokens_BT: Tensor, pull: Pull | None) -> tuple[Tensor, dict[str, Tensor]]:
        with self.clock.phase("teacher and student"):
            return super()._learn(images_BCHW, tokens_BT, pull)

    def _update(self) -> float:
        with self.clock.phase("clip and optimizer"):
            return super()._update()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", default=str(EXAMPLE))
    parser.add_argument("--stage", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    spec = JobSpec.model_validate(load_spec(Path(arguments.spec)))
    clock = Clock()
    trainer, batches = build(spec, arguments.stage, arguments.threads, torch.device(arguments.device), clock)
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    clock.seconds.clear()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        with clock.phase("wait for data"):
            batch = next(batches)
        trainer.train_step(batch)
    show(clock, time.perf_counter() - start, arguments.steps, trainer)


def build(
    spec: JobSpec, stage_index: int, threads: int, device: torch.device, clock: Clock
) -> tuple[TimedTrainer, Iterator[Batch]]:
    assert spec.teacher is not None, "give a spec that has a teacher"
    original: LoadedModel = load_teacher(spec.teacher)
    stage = resolve_stages(spec, original.layout, count_pairs(spec.data))[stage_index]
    student = begin_student(stage, spec.seed, Parent(original.model.state_dict(), original.layout))
    teacher = FrozenTeacher(original.model.to(device), spec.temperature.teacher)
    timed: Any = TimedTeacher(teacher, clock)
    trainer = TimedTrainer(spec, stage, student, timed, device, mean=original.image_mean, std=original.image_std)
    trainer.clock = clock
    tokenizer = make_tokenizer(stage.layout)
    stream = PairStream(
        spec.data,
        batch_size=stage.batch_size,
        image_size=stage.layout.image.image_size,
        tokenize=lambda text: tokenizer(text)[0],
        seed=spec.seed,
    )
    return trainer, iter(make_loader(stream, max(1, threads - 1)))


def show(clock: Clock, wall: float, steps: int, trainer: TimedTrainer) -> None:
    phases = dict(clock.seconds)
    compute = phases["teacher and student"]
    phases["student forward and backward"] = compute - phases["teacher forward"]
    phases["everything else"] = (
        wall - sum(phases[name] for name in ("wait for data", "augment and normalise", "clip and optimizer")) - compute
    )
    table = Table(title=f"stage {trainer.stage.name}: {steps} steps of {trainer.stage.batch_size} pairs on {trainer.device}")
    for column in ("phase", "ms a step", "share"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name in PHASES:
        table.add_row(name, f"{1000 * phases.get(name, 0) / steps:.1f}", f"{phases.get(name, 0) / wall:.1%}")
    table.add_section()
    table.add_row("teacher and student", f"{1000 * compute / steps:.1f}", f"{compute / wall:.1%}")
    table.add_row("whole step", f"{1000 * wall / steps:.1f}", f"{steps * trainer.stage.batch_size / wall:.0f} pairs/s")
    Console().print(table)


if __name__ == "__main__":
    main()
