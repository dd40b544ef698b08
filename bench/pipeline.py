"""Time of a training step by phase: `python bench/pipeline.py [SPEC.yaml] [--stage 1] [--steps 30] [--threads 2]`.

Runs a stage of a spec in this process, with the same loader, student, teacher and step as a job, and prints each phase's share of
the wall time. The default is the last stage of the demo, whose student inherits from the teacher.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import length_multiple
from tinyclip_workers.training import trainer as trainer_module
from tinyclip_workers.training.calibration import calibration_of
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.stage import Parent, Stage, build_student, resolve_stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.trainer import StageTrainer

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
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start

    def time_calls(self, owner: Any, name: str, phase: str) -> None:
        """Add the seconds of every call of `owner.name` to a phase."""
        call = getattr(owner, name)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return call(*args, **kwargs)

        setattr(owner, name, timed)


def time_step(trainer: StageTrainer, clock: Clock) -> None:
    """Time the statements of `StageTrainer.train_step`."""
    clock.time_calls(trainer, "prepare", "augment and normalise")
    clock.time_calls(trainer_module, "teachers_forward", "teacher forward")
    for owner, name in ((GradientCache, "forward"), (trainer_module, "objective_terms"), (GradientCache, "backward")):
        clock.time_calls(owner, name, "student forward and backward")
    for name in ("clip_gradients", "update"):
        clock.time_calls(trainer.learner, name, "clip and optimizer")


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
    trainer, batches = build(spec, arguments.stage, arguments.threads, torch.device(arguments.device))
    clock = Clock()
    time_step(trainer, clock)
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    clock.seconds.clear()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        with clock.phase("wait for data"):
            batch = next(batches)
        trainer.train_step(batch)
    show(clock.seconds, time.perf_counter() - start, arguments.steps, trainer)


def build(spec: JobSpec, stage_index: int, threads: int, device: torch.device) -> tuple[StageTrainer, Iterator[Batch]]:
    """Make the trainer of a stage and its batches."""
    assert spec.teacher is not None, "give a spec that has a teacher"
    original: LoadedModel = load_teacher(spec.teacher)
    stages: list[Stage] = []
    index = index_shards(spec.data.train)
    for number in range(len(spec.stages)):
        before = stages[-1] if stages else None
        stages.append(resolve_stage(spec, number, before.layout if before else original.layout, before, index.pairs))
    stage = stages[stage_index]
    parent, tokenizer = Parent(original.model.state_dict(), original.layout), make_tokenizer(stage.layout)
    start = replace(original, model=build_student(stage, spec.seed, None), layout=stage.layout, tokenizer=tokenizer)
    calibration = calibration_of(spec, index, stage.index, start, parent, original)
    student = build_student(stage, spec.seed, parent, calibration)
    teacher = FrozenTeacher(original.model, spec.temperature.teacher).to(device)
    colors = {"mean": original.image_mean, "std": original.image_std}
    trainer = StageTrainer(spec, stage, student, [teacher], device, **colors, calibration=calibration)
    trainer.learner.prune_if_due(0)  # a student by importance is cut before its first step
    stream = PairStream(
        spec.data,
        index,
        batch_size=stage.batch_size,
        image_size=stage.layout.image_size,
        tokenize=lambda text: tokenizer(text)[0],
        seed=spec.seed,
        text_multiple=length_multiple(device),
    )
    return trainer, iter(BatchLoader(stream, max(1, threads - 1), pin=device.type == "cuda"))


def show(seconds: Mapping[str, float], wall: float, steps: int, trainer: StageTrainer) -> None:
    """Print the milliseconds of each phase and its share of the wall time."""
    phases = {**seconds, "everything else": wall - sum(seconds.values())}
    table = Table(title=f"stage {trainer.stage.name}: {steps} steps of {trainer.stage.batch_size} pairs on {trainer.device}")
    for column in ("phase", "ms a step", "share"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name in PHASES:
        table.add_row(name, f"{1000 * phases.get(name, 0) / steps:.1f}", f"{phases.get(name, 0) / wall:.1%}")
    table.add_section()
    compute = phases.get("teacher forward", 0) + phases["student forward and backward"]
    table.add_row("teacher and student", f"{1000 * compute / steps:.1f}", f"{compute / wall:.1%}")
    table.add_row("whole step", f"{1000 * wall / steps:.1f}", f"{steps * trainer.stage.batch_size / wall:.0f} pairs/s")
    Console().print(table)


if __name__ == "__main__":
    main()
