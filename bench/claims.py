"""The paper's claims at the size of the emoji drawings: `python bench/claims.py [--seeds 0 1 2] [--only NAME …] [--threads 1]`.

Trains students of the ViT teacher, all with the same data and number of steps, and evaluates each every few steps. A result is
one JSON line in `bench/results/claims.jsonl`; recorded runs are not repeated, so it may be stopped at any time, and several
processes may run different seeds in parallel. `bench/claims_report.py` makes the tables and the curves.

Comparisons:
- Inheritance against random weights, at three sizes: `scratch-N`, `manual-N` and `auto-N` end with the same share of the
  teacher's weights in attention and MLPs and learn from the same affinities; only where their weights come from differs.
- Stages against one shot at a quarter: `manual-staged-25` and `auto-staged-25` have the steps of the one-shot runs in all.
- Objectives: the student of `manual-50` (whose objective is affinity) taught by each of the other published terms.
- Inheritance by importance (METHOD section 13), taught by feature mimicry: `importance-manual-N`, `importance-auto-N` and
  `frozen-auto-N` have the sizes of the others. All the others repeat the paper: leading parts and joint masks.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hardware import cpu
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import StudentSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.model.architecture import resolve_layout, summarize
from tinyclip_workers.model.masked import removed_share
from tinyclip_workers.model.sources import find_teacher
from tinyclip_workers.training.clusters import make_clusters
from training import Scores, Snapshot, run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "claims.jsonl"
BASE = HERE.parent / "examples" / "emoji" / "auto-quarter.yaml"
STEPS, BATCH, EVALUATE_EVERY = 600, 64, 50
CURVE_TASKS = ("style-subgroup", "style-retrieval")
TOWERS = ("image", "text")

# Cut as the paper's manual students are: width and depth of both towers, attention heads with the width.
STUDENTS: dict[int, dict[str, Any]] = {
    75: {"image": {"width": 160}, "text": {"mlp_ratio": 3}},
    50: {"image": {"width": 128}, "text": {"layers": 2, "mlp_ratio": 3}},
    25: {"image": {"width": 96}, "text": {"layers": 1, "width": 160, "heads": 5, "mlp_ratio": 3}},
}
# Log-odds move by about mask_lr per step and have to move by 6 from "kept" to "removed": fast enough for a search of 160 steps.
MASK_LR = 0.06
SEARCH = {"prune_step": 160, "sparsity_warmup": 60}
STAGED = {75: 180, 50: 180, 25: 240}
"""Steps of the stages of a staged run, by the size of their student."""
CLUSTERS, CLUSTER_FILE = 128, HERE / "results" / "clusters.safetensors"
# Each term alone, with its paper's weight where that matters (only clipping depends on it).
OBJECTIVES: dict[str, dict[str, Any]] = {
    "contrastive": {"contrastive": 1},
    "feature-mimicry": {"feature_mimicry": 1},  # recorded before it was 1: 2000 times a mean over 256 numbers, or 2 times this
    "interactive-contrastive": {"interactive_contrastive": 1},
    "relational": {"vertical_relational": 1, "cross_relational": 1},
    "relational-beside-contrastive": {"contrastive": 1, "vertical_relational": 1, "cross_relational": 1},
    "cluster-instance": {"cluster_instance": 1, "clusters": str(CLUSTER_FILE)},
}


MIMICRY = {"feature_mimicry": 1}


@dataclass(frozen=True)
class Run:
    name: str
    stages: list[dict[str, Any]]
    objective: dict[str, Any] = field(default_factory=lambda: {"affinity": 1.0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of runs (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16", help="bf16 is faster if the CPU has AVX512-BF16 or AMX")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    for seed in arguments.seeds:
        for run in runs():
            wanted = arguments.only is None or run.name in arguments.only
            if wanted and (run.name, seed) not in {(line["run"], line["seed"]) for line in read_results()}:
                keep(train(run, seed, arguments.precision))


def runs() -> Iterator[Run]:
    """Yield every run of one seed, those of the main claim first."""
    for size in STUDENTS:
        yield Run(f"manual-{size}", [_manual(size, STEPS)])
        yield Run(f"scratch-{size}", [_manual(size, STEPS) | {"inherit": "none"}])
        yield Run(f"auto-{size}", [_auto(size, STEPS, before=None)])
        yield Run(f"importance-manual-{size}", [_manual(size, STEPS, "importance")], MIMICRY)
        yield Run(f"importance-auto-{size}", [_auto(size, STEPS, before=None, search="importance")], MIMICRY)
        yield Run(f"frozen-auto-{size}", [_auto(size, STEPS, before=None, search="frozen")], MIMICRY)
    yield Run("manual-staged-25", [_manual(size, steps) for size, steps in STAGED.items()])
    befores = (None, *STAGED)
    yield Run("auto-staged-25", [_auto(size, steps, befores[i]) for i, (size, steps) in enumerate(STAGED.items())])
    for name, objective in OBJECTIVES.items():
        yield Run(f"objective-{name}", [_manual(50, STEPS)], objective)


def _manual(size: int, steps: int, select: str = "leading") -> dict[str, Any]:
    student = {"select": select, "student": STUDENTS[size]}
    return {"name": f"to-{size}", "inherit": "manual", **student, "train": {"steps": steps}}


def _auto(size: int, steps: int, before: int | None, search: str = "joint") -> dict[str, Any]:
    """Return a stage whose masks remove as much as the manual student of this size lacks."""
    start = 0.0 if before is None else removed_by(before)
    by_masks = {} if search == "importance" else {"start_sparsity": start, **SEARCH}
    prune = {"search": search, "target_sparsity": removed_by(size), **by_masks}
    return {"name": f"to-{size}", "inherit": "auto", "prune": prune, "train": {"steps": steps}}


@cache
def removed_by(size: int) -> float:
    """Return the share of the teacher's weights in attention and MLPs that a manual student lacks."""
    teacher = find_teacher(base_spec().teacher).layout
    student = resolve_layout(StudentSpec.model_validate(STUDENTS[size]), teacher)
    return round(removed_share(teacher, student, TOWERS), 4)


def base_spec(**changes: Any) -> Any:
    """Return the example's spec, with changes."""
    return JobSpec.model_validate({**load_spec(BASE), **changes})


def train(run: Run, seed: int, precision: str) -> dict[str, Any]:
    """Train a run and return its result line."""
    spec = base_spec(
        name=run.name,
        stages=run.stages,
        objective=run.objective,
        optimizer={"lr": 1e-3, "warmup_steps": 50, "mask_lr": MASK_LR},
        batch_size=BATCH,
        precision=precision,
        seed=seed,
        evaluation={**load_spec(BASE)["evaluation"], "every_steps": EVALUATE_EVERY},
    )
    tasks = [task for task in spec.evaluation.tasks if task.name in CURVE_TASKS]
    teacher, curve = teacher_of(spec), []
    if spec.objective.clusters and not CLUSTER_FILE.exists():
        make_clusters(spec, str(CLUSTER_FILE), CLUSTERS)

    def observe(snapshot: Snapshot) -> None:
        scores = _shown(scores_of(snapshot.student, spec, tasks))
        curve.append({"step": snapshot.step, "seconds": round(snapshot.seconds, 2), **scores})

    trained = list(run_stages(spec, teacher, f"{run.name} seed {seed}", observe))
    student, scores = trained[-1].student, scores_of(trained[-1].student, spec)
    seconds = round(sum(stage.seconds for stage in trained), 2)
    curve.append({"step": sum(stage.stage.steps for stage in trained), "seconds": seconds, **_shown(scores)})
    kept = 1 - removed_share(teacher.layout, student.layout, TOWERS)
    return {
        "run": run.name,
        "seed": seed,
        "precision": precision,
        "cpu": cpu(),
        "kept_of_blocks": round(kept, 4),
        **summarize(student.layout).model_dump(mode="json"),
        "scores": scores,
        "curve": curve,
    }


def _shown(scores: Scores) -> dict[str, float]:
    return {"top1": scores["style-subgroup"]["top1"], "r10": scores["style-retrieval"]["text_to_image_r10"]}


def keep(result: dict[str, Any]) -> None:
    """Append a line in one write, so that those of two processes do not mix."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")


def read_results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
