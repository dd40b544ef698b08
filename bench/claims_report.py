"""Tables and curves of `claims.py`: `python bench/claims_report.py`, writes `bench/results/claims.md` and `claims.svg`.

Every figure is read from `bench/results/claims.jsonl`; a comparison whose runs are missing is omitted, and every mean has its
number of seeds.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from claims import BATCH, EVALUATE_EVERY, OBJECTIVES, SEARCH, STEPS, STUDENTS, read_results

matplotlib.use("svg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
Line = dict[str, Any]
METRICS = (("style-subgroup", "top1"), ("style-retrieval", "text_to_image_r1"), ("style-retrieval", "text_to_image_r10"))
COLUMNS = ("run", "seeds", "kept of blocks", "params without embedding", "sub-group top-1", "R@1", "R@10", "CPU time of training")


def main() -> None:
    by_run: dict[str, list[Line]] = {}
    for line in read_results():
        by_run.setdefault(line["run"], []).append(line)
    parts = [
        f"Students of the emoji ViT teacher after {STEPS} steps of {BATCH} pairs; percent on the style that training never sees,",
        "mean over the seeds, in brackets the lowest and the highest. `bench/README.md` explains how. CPU times are",
        "compared if both runs are of one machine:",
        *(f"- {name}" for name in sorted({line["cpu"] for lines in by_run.values() for line in lines})),
        "",
        "## Steps to the final accuracy of the student from scratch",
        f"Evaluated every {EVALUATE_EVERY} steps, so no smaller number is possible. An automatic student is small only",
        f"after its prune step {SEARCH['prune_step']}; only its scores from then on count.",
        *speedups(by_run),
        "## Sizes, stages and one shot",
        *table(by_run, [name for name in by_run if not name.startswith("objective-")]),
        "## Objectives, on the student of `manual-50`",
        *table(by_run, ["manual-50", *(f"objective-{name}" for name in OBJECTIVES)]),
        "![accuracy over steps](claims.svg)",
    ]
    (RESULTS / "claims.md").write_text("\n".join(parts) + "\n")
    curves(by_run)


def table(by_run: dict[str, list[Line]], names: Iterable[str]) -> list[str]:
    rows = [_row(name, by_run[name]) for name in names if name in by_run]
    return ["", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows, ""]


def _row(name: str, lines: Sequence[Line]) -> str:
    params = mean(line["image_params"] + line["text_params_without_embedding"] for line in lines) / 1e6
    scores = [_spread([100 * line["scores"][task][metric] for line in lines]) for task, metric in METRICS]
    seconds = _spread([line["curve"][-1]["seconds"] for line in lines], digits=0)
    kept = f"{100 * mean(line['kept_of_blocks'] for line in lines):.1f}%"
    return f"| {name} | {len(lines)} | {kept} | {params:.2f}M | {' | '.join(scores)} | {seconds} s |"


def _spread(values: Sequence[float], digits: int = 1) -> str:
    low, high = min(values), max(values)
    return f"{mean(values):.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else "")


def speedups(by_run: dict[str, list[Line]]) -> list[str]:
    """Compare steps and CPU time until a student with inheritance reaches the final accuracy of the one from scratch."""
    rows = ["", "| student | measure | seeds | steps | times fewer steps | times less CPU time |", "|---|---|---|---|---|---|"]
    for size in STUDENTS:
        for kind in ("manual", "auto"):
            for measure in ("top1", "r10"):
                found = list(_reached(by_run, f"{kind}-{size}", f"scratch-{size}", measure))
                if found:
                    rows.append(_speedup_row(f"{kind}-{size}", measure, found))
    return [*rows, ""]


class Reached(NamedTuple):
    step: float
    times_fewer: float
    times_less_cpu: float | None
    """`None` if the two runs were on different machines."""


def _reached(by_run: dict[str, list[Line]], name: str, scratch: str, measure: str) -> Iterable[Reached | None]:
    """Yield a comparison for each seed of both; `None` if the accuracy is never reached.

    Before its prune step an automatic student is not small yet, so its scores there do not count.
    """
    small_from = SEARCH["prune_step"] if name.startswith("auto") else 0
    scratches = {line["seed"]: line for line in by_run.get(scratch, [])}
    for line in by_run.get(name, []):
        if (other := scratches.get(line["seed"])) is not None:
            end = other["curve"][-1]
            moments = (m for m in line["curve"] if m["step"] > small_from)
            moment = next((m for m in moments if m[measure] >= end[measure]), None)
            comparable = line["cpu"] == other["cpu"]
            yield moment and Reached(
                moment["step"], end["step"] / moment["step"], end["seconds"] / moment["seconds"] if comparable else None
            )


def _speedup_row(name: str, measure: str, found: Sequence[Reached | None]) -> str:
    reached = [each for each in found if each is not None]
    if len(reached) < len(found):
        return f"| {name} | {measure} | {len(found)} | not reached by {len(found) - len(reached)} | | |"
    steps, times = _spread([each.step for each in reached], 0), _spread([each.times_fewer for each in reached])
    seconds = [each.times_less_cpu for each in reached if each.times_less_cpu is not None]
    return f"| {name} | {measure} | {len(found)} | {steps} | {times} | {_spread(seconds) if seconds else ''} |"


def curves(by_run: dict[str, list[Line]]) -> None:
    """Draw accuracy over steps, one panel per size, the smallest with the staged runs. A band is the range over the seeds."""
    figure, panels = plt.subplots(1, len(STUDENTS), figsize=(13, 4), sharey=True, layout="constrained")
    for panel, size in zip(panels, STUDENTS, strict=True):
        names = [f"{kind}-{size}" for kind in ("scratch", "manual", "auto")]
        if size == min(STUDENTS):
            names += [f"manual-staged-{size}", f"auto-staged-{size}"]
        for name in names:
            if name in by_run:
                _draw(panel, name, by_run[name])
        panel.axvline(SEARCH["prune_step"], color="gray", linewidth=0.8, linestyle=":")  # auto is small from here on
        panel.set_title(f"{size}%")
        panel.set_xlabel("steps")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    panels[0].set_ylabel("sub-group top-1, percent")
    figure.savefig(RESULTS / "claims.svg", metadata={"Date": None})


def _draw(panel: Any, name: str, lines: Sequence[Line]) -> None:
    steps = [moment["step"] for moment in lines[0]["curve"]]
    top1_SM = 100 * np.array([[moment["top1"] for moment in line["curve"]] for line in lines])
    [drawn] = panel.plot(steps, top1_SM.mean(0), label=name, linestyle="--" if "staged" in name else "-")
    panel.fill_between(steps, top1_SM.min(0), top1_SM.max(0), color=drawn.get_color(), alpha=0.15)


if __name__ == "__main__":
    main()
