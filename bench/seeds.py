"""The demo's student and the one from scratch, over seeds: `python bench/seeds.py [--seeds 0 1 2] [--threads 2]`.

Trains `examples/emoji/half.yaml` and `half-scratch.yaml` stage by stage with the loop that a job runs, in this process and
without Ray, and evaluates each student next to the teacher. A result is one JSON line in `bench/results/seeds.jsonl`; what is
there already is not run again. Prints the table of means and ranges.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tinyclip.cli._specfile import load_spec
from tinyclip.schemas import JobSpec, StudentSummary
from tinyclip_workers.architecture import build_model, summarize
from tinyclip_workers.control import Command
from tinyclip_workers.data import Batch, PairStream, make_loader
from tinyclip_workers.evaluate import evaluate_tasks
from tinyclip_workers.images import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.inherit import inherit_manual
from tinyclip_workers.model_folder import LoadedModel, make_tokenizer
from tinyclip_workers.stage import Stage, resolve_stages
from tinyclip_workers.step import FrozenTeacher
from tinyclip_workers.teacher import load_teacher
from tinyclip_workers.trainer import Hooks, StageTrainer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "seeds.jsonl"
EXAMPLES = HERE.parent / "examples" / "emoji"
SHOWN = (
    ("style-subgroup", "top1", "sub-group top-1"),
    ("style-group", "top1", "group top-1"),
    ("style-retrieval", "text_to_image_r1", "R@1"),
    ("style-retrieval", "text_to_image_r10", "R@10"),
    ("concept-subgroup", "top1", "new concepts top-1"),
    ("picture-subgroup", "top1", "new pictures top-1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--specs", nargs="+", default=["half", "half-scratch"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    done = read_results()
    for name in arguments.specs:
        for seed in arguments.seeds:
            if not any((r["spec"], r["seed"]) == (name, seed) for r in done):
                run_spec(name, seed)
    show(read_results())


def read_results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run_spec(name: str, seed: int) -> None:
    """Every stage of a spec; one result line a stage, written when all are done."""
    spec = JobSpec.model_validate(load_spec(EXAMPLES / f"{name}.yaml", [f"seed={seed}"]))
    original = load_teacher(spec.teacher) if spec.teacher else None
    before, lines = original, []
    for stage in resolve_stages(spec, original.layout if original else None, 0):
        student = train(spec, stage, before, original, f"{name} seed {seed} stage {stage.name}")
        models = {"student": student} if original is None else {"student": student, "teacher": original}
        scores = evaluate_tasks(models, spec.evaluation.tasks, holdout=spec.data.train.holdout)
        student_size = size(summarize(stage.layout))
        common = {"spec": name, "seed": seed, "stage": stage.name, "params": student_size}
        lines.append({**common, "scores": {task: _numbers(found["student"]) for task, found in scores.items()}})
        if original is not None and stage.index == 0:
            teacher = {task: _numbers(found["teacher"]) for task, found in scores.items()}
            lines.append({**common, "stage": "teacher", "params": size(summarize(original.layout)), "scores": teacher})
        before = student
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def train(spec: JobSpec, stage: Stage, before: LoadedModel | None, original: LoadedModel | None, title: str) -> LoadedModel:
    """One stage to its end, as a worker does it."""
    torch.manual_seed(spec.seed + stage.index)
    student = build_model(stage.layout)
    if stage.inherit == "manual" and before is not None:
        student.load_state_dict(inherit_manual(student, before.model.state_dict(), stage.layout, before.layout))
    teacher = FrozenTeacher(original.model, spec.temperature.teacher) if original else None
    mean, std = (original.image_mean, original.image_std) if original else (OPENAI_MEAN, OPENAI_STD)
    trainer = StageTrainer(spec, stage, student, teacher, torch.device("cpu"), mean=mean, std=std)
    tokenizer = make_tokenizer(stage.layout)
    stream = PairStream(
        spec.data,
        batch_size=stage.batch_size,
        image_size=stage.layout.image.image_size,
        tokenize=lambda text: tokenizer(text)[0],
        seed=spec.seed,
    )
    trainer.run(_shown(iter(make_loader(stream, 1)), stage.steps, title), _quiet())
    return LoadedModel(student.eval(), stage.layout, tokenizer, mean, std, name=stage.name, digest="")


def _shown(batches: Iterator[Batch], steps: int, title: str) -> Iterator[Batch]:
    yield from (batch for batch, _ in zip(batches, track(range(steps), description=title), strict=False))


def _quiet() -> Hooks:
    return Hooks(
        command=lambda: Command.RUN, progress=lambda _: None, checkpoint=lambda _: None, evaluate=lambda _: None
    )  # fmt: skip


def size(summary: StudentSummary) -> int:
    """Parameters without the token embedding."""
    return summary.image_params + summary.text_params_without_embedding


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items() if isinstance(value, float)}


def show(results: list[dict[str, Any]]) -> None:
    """Mean over the seeds, and in brackets the lowest and the highest."""
    table = Table(title="emoji, validation style unless said; percent")
    for column in ("model", "seeds", "params without embedding", *(title for _, _, title in SHOWN)):
        table.add_column(column, justify="left" if column == "model" else "right")
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        key = ("", "teacher") if result["stage"] == "teacher" else (result["spec"], result["stage"])
        rows.setdefault(key, []).append(result)
    for (spec, stage), found in sorted(rows.items()):
        cells = []
        for task, metric, _ in SHOWN:
            values = [100 * result["scores"][task][metric] for result in found]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if max(values) > min(values) else ""
            cells.append(f"{sum(values) / len(values):.1f}{spread}")
        seeds = "" if stage == "teacher" else str(len(found))
        table.add_row(f"{spec} {stage}".strip(), seeds, f"{found[0]['params'] / 1e6:.2f}M", *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
