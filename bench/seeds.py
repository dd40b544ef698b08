"""Compare the demo's student with one trained from scratch over seeds: `python bench/seeds.py [--seeds 0 1 2] [--threads 2]`.

Trains `examples/emoji/half.yaml` and `half-scratch.yaml` stage by stage in this process (`training.py`) and evaluates each
student and the teacher, also on styles far from those of training. A result is one JSON line in `bench/results/seeds.jsonl`;
seeds with a result are skipped, and several processes may run side by side. Prints a table of means and ranges.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from distant_styles import STYLES, distant_tasks
from recorded import Recorded
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec, StudentSummary
from tinyclip.specfile import load_spec
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.summary import summarize
from training import run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "seeds.jsonl", "spec", "seed")
DISTANT = HERE / "results" / "distant"
EXAMPLES = HERE.parent / "examples" / "emoji"
SHOWN = (
    ("style-subgroup", "top1", "sub-group top-1"),
    ("style-group", "top1", "group top-1"),
    ("style-retrieval", "text_to_image_r1", "R@1"),
    ("style-retrieval", "text_to_image_r10", "R@10"),
    ("concept-subgroup", "top1", "new concepts top-1"),
    ("picture-subgroup", "top1", "held-out pictures top-1"),
    *((f"distant-{style}", "top1", style) for style in STYLES),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--specs", nargs="+", default=["half", "half-scratch"], help="files of examples/emoji, without .yaml")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        for name in arguments.specs:
            with RESULTS.missing(name, seed) as missing:
                if missing:
                    run_spec(name, seed)
    show(RESULTS.lines())


def run_spec(name: str, seed: int) -> None:
    """Train every stage of a spec, then append one result line for each."""
    described = load_spec(EXAMPLES / f"{name}.yaml", [f"seed={seed}"])
    described["evaluation"]["tasks"] += distant_tasks(described, DISTANT)
    spec = JobSpec.model_validate(described)
    original = teacher_of(spec)
    lines = []
    if original is not None:
        lines.append(_line(name, seed, "teacher", original, spec))
    for trained in run_stages(spec, original, f"{name} seed {seed}", observe=lambda _: None):
        line = _line(name, seed, trained.stage.name, trained.student, spec)
        lines.append(line | {"seconds": round(trained.seconds, 1)})
    RESULTS.keep(*lines)


def _line(name: str, seed: int, stage: str, model: LoadedModel, spec: JobSpec) -> dict[str, Any]:
    params = size(summarize(model.layout))
    return {"spec": name, "seed": seed, "stage": stage, "params": params, "scores": scores_of(model, spec)}


def size(summary: StudentSummary) -> int:
    """Return the number of parameters without the token embedding."""
    return summary.image_params + summary.text_params_without_embedding


def show(results: list[dict[str, Any]]) -> None:
    """Print the mean over the seeds, with the lowest and the highest in brackets."""
    table = Table(title="emoji, validation style unless noted; percent")
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
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
