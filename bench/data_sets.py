"""The recipe on other data sets: `python bench/data_sets.py FOLDER [--sets caltech101 openclipart] [--seeds 0 1 2]`.

FOLDER has a folder for each data set, with `train-*.tar`, `val-*.tar` and `dataset.json` (its classes). For each set this trains
the teacher of `examples/caltech101/teacher.yaml` (once, into `bench/results/teachers`), then a half of it as in `half.yaml`, and
shorter runs that compare objectives and learning rates on held-out training pictures. A result is one JSON line in
`bench/results/data_sets.jsonl`; recorded runs are not repeated. Prints a table.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hardware import cpu
from recorded import Recorded
from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.versions.writer import model_files
from training import run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "caltech101"
RESULTS = Recorded(HERE / "results" / "data_sets.jsonl", "set", "run", "seed")
TEACHERS = HERE / "results" / "teachers"
SHORT, HOLDOUT = 300, 0.1
SHOWN = ("held-out", "validation")


class Kind(NamedTuple):
    """What differs between the sets."""

    image_key: str
    caption_key: str
    template: str


SETS = {
    "caltech101": Kind("jpg", "txt", "a photo of a {}."),
    "openclipart": Kind("png", "json.captions", "clip art of a {}."),
}


class Run(NamedTuple):
    name: str
    train: dict[str, int]
    objective: dict[str, float]
    lr: float
    select: str = "importance"


HALF = {"epochs": 12}
RUNS = (
    Run("half", HALF, {"feature_mimicry": 1}, 1e-3),
    Run("paper", HALF, {"affinity": 1}, 3e-4, "leading"),
    Run("mimicry", {"steps": SHORT}, {"feature_mimicry": 1}, 1e-3),
    Run("mimicry-low-rate", {"steps": SHORT}, {"feature_mimicry": 1}, 3e-4),
    Run("affinity", {"steps": SHORT}, {"affinity": 1}, 3e-4),
    Run("affinity-and-mimicry", {"steps": SHORT}, {"affinity": 1, "feature_mimicry": 1}, 1e-3),
    Run("contrastive-and-mimicry", {"steps": SHORT}, {"contrastive": 1, "feature_mimicry": 1}, 1e-3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of runs (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.sets:
        with RESULTS.missing(name, "teacher", 0) as missing:
            if missing:
                RESULTS.keep(train_teacher(arguments.folder, name))
    for seed in arguments.seeds:
        for name in arguments.sets:
            for run in RUNS:
                if arguments.only is None or run.name in arguments.only:
                    with RESULTS.missing(name, run.name, seed) as missing:
                        if missing:
                            RESULTS.keep(train(arguments.folder, name, run, seed))
    show(RESULTS.lines())


def train_teacher(folder: Path, name: str) -> dict[str, Any]:
    """Train and save the teacher of a set; return its result line."""
    spec = JobSpec.model_validate(example(folder, name, "teacher"))
    trained = list(run_stages(spec, None, f"{name} teacher", observe=lambda _: None))[-1]
    _save(trained.student, TEACHERS / name)
    scores = scores_of(trained.student, spec)
    return {"set": name, "run": "teacher", "seed": 0, "cpu": cpu(), "seconds": round(trained.seconds), "scores": scores}


def train(folder: Path, name: str, run: Run, seed: int) -> dict[str, Any]:
    """Train a student and return its result line."""
    changes = {
        "teacher": {"model": f"local-dir:{TEACHERS / name}"},
        "objective": run.objective,
        "optimizer": {"lr": run.lr, "warmup_steps": 20},
        "seed": seed,
    }
    described = example(folder, name, "half") | changes
    described["stages"] = [described["stages"][0] | {"select": run.select, "train": run.train}]
    spec = JobSpec.model_validate(described)
    start: dict[str, Any] = {}

    def observe(snapshot: Any) -> None:
        start.update(scores_of(snapshot.student, spec))

    trained = list(run_stages(spec, teacher_of(spec), f"{name} {run.name} seed {seed}", observe))[-1]
    return {
        "set": name,
        "run": run.name,
        "seed": seed,
        "cpu": cpu(),
        "seconds": round(trained.seconds),
        "scores": scores_of(trained.student, spec),
        "scores_before_training": start,
    }


def example(folder: Path, name: str, file: str) -> dict[str, Any]:
    """Return a spec of the example, for another data set, with some of the training pictures held out."""
    kind, data = SETS[name], folder.absolute() / name
    document = json.loads((data / "dataset.json").read_text())
    labels = next(iter(document["labels"].values()))
    spec = load_spec(EXAMPLE / f"{file}.yaml")
    task = {
        "kind": "zero_shot",
        "image_key": [kind.image_key],
        "classes": labels["classes"],
        "templates": [kind.template],
        "label_key": f"json.{labels['field']}",
    }
    train, val = str(data / "train-*.tar"), str(data / "val-*.tar")
    spec["data"]["train"] |= {
        "shards": train,
        "image_key": [kind.image_key],
        "caption_key": kind.caption_key,
        "holdout": HOLDOUT,
        "samples": round((1 - HOLDOUT) * document["splits"]["train"]["samples"]),
    }
    held_out = {**task, "name": "held-out", "shards": train, "subset": "holdout"}
    return spec | {"evaluation": {"tasks": [held_out, {**task, "name": "validation", "shards": val}]}}


def _save(model: LoadedModel, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_suffix(".writing")
    temporary.mkdir(exist_ok=True)
    weights = save({name: tensor.contiguous() for name, tensor in model.model.state_dict().items()})
    for file, content in model_files(model.layout, weights, model.image_mean, model.image_std, None).items():
        (temporary / file).write_bytes(content)
    temporary.rename(folder)


def show(results: list[dict[str, Any]]) -> None:
    """Print the mean over the seeds, with the lowest and the highest in brackets, and the share of the teacher's."""
    table = Table(title="zero-shot top-1, percent")
    for column in ("set", "run", "seeds", *SHOWN, "of the teacher's (validation)", "before training (validation)", "CPU s"):
        table.add_column(column, justify="left" if column in ("set", "run") else "right")
    for name in SETS:
        lines = [line for line in results if line["set"] == name]
        teacher = next((line["scores"]["validation"]["top1"] for line in lines if line["run"] == "teacher"), None)
        for run in dict.fromkeys(line["run"] for line in lines):
            found = [line for line in lines if line["run"] == run]
            top1 = {task: [100 * line["scores"][task]["top1"] for line in found] for task in SHOWN}
            share = f"{_mean(top1['validation']) / teacher:.1f}%" if teacher else ""
            before = [100 * line["scores_before_training"]["validation"]["top1"] for line in found if run != "teacher"]
            seconds = f"{_mean([line['seconds'] for line in found]):.0f}"
            table.add_row(name, run, str(len(found)), *map(_spread, top1.values()), share, _spread(before), seconds)
    Console(width=150).print(table)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{_mean(values):.1f}" + (f" ({low:.1f} to {high:.1f})" if high > low else "")


if __name__ == "__main__":
    main()
