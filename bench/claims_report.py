"""Tables and curves of `claims.py`: `python bench/claims_report.py`, writes `bench/results/claims.md` and `claims.svg`.

Every figure is read from `bench/results/claims.jsonl`; a comparison whose runs are missing is omitted, and every mean has its
number of seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from claims import BATCH
from claims import RESULTS as RECORDED
from claims_runs import LONG, MIDDLE, NARROW, NARROW_RATES, OBJECTIVES, SETTINGS, SHORT, STUDENTS

matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams["svg.hashsalt"] = "claims"  # the same file for the same results

RESULTS = Path(__file__).parent / "results"
Line = dict[str, Any]
Runs = dict[tuple[str, int], list[Line]]
"""The lines of each run, by its name and number of steps."""

SELECTED = ("random", "leading", "manual", "joint", "frozen", "auto")
DISTANT = ("distant-black-and-white", "distant-outlined", "distant-inverted")
COLUMNS = (
    "run", "seeds", "kept of blocks", "MACs", "KL: before training, after", "held-out pictures", "style top-1", "style R@10",
    "unseen concepts", "distant styles kept", "CPU s",
)  # fmt: skip


def main() -> None:
    by_run: Runs = {}
    for line in RECORDED.lines():
        by_run.setdefault((line["run"], line["steps"]), []).append(line)
    sizes = [(f"{kind}-{size}", SHORT) for size in STUDENTS for kind in SELECTED]
    paper = [name for name, steps in by_run if steps == MIDDLE and name.startswith(("scratch", "paper"))]
    budgets = [(f"{kind}-50", steps) for kind in ("leading", "manual", "auto") for steps in (SHORT, MIDDLE, LONG)]
    others = [*(f"objective-{name}{rate}" for name in OBJECTIVES for rate in ("", "-low-rate")), *SETTINGS]
    parts = [
        f"Students of the emoji teachers, batches of {BATCH} pairs. Percent, mean over the seeds, in brackets the lowest and the",
        "highest. `bench/README.md` explains how, and `bench/claims_runs.py` what the runs are. KL is that of the student's",
        "affinities from the teacher's on held-out pairs. Distant styles: the share of the teacher's top-1, a mean over three",
        f"styles. CPU: {', '.join(sorted({line['cpu'] for lines in by_run.values() for line in lines if 'cpu' in line}))}.",
        "",
        f"## What is inherited: {SHORT} steps, feature mimicry",
        *table(by_run, [("teacher-vit", 0), *sizes]),
        *verdicts(by_run),
        f"## The ResNet teacher: {SHORT} steps, feature mimicry (kept: of all weights but the word embedding)",
        *table(by_run, [("teacher-resnet", 0), *((f"resnet-{kind}-50", SHORT) for kind in ("leading", "manual"))]),
        f"## The paper: {MIDDLE} steps, affinity alone",
        *table(by_run, [(name, MIDDLE) for name in paper]),
        "## Budgets: 300, 600 and 2,400 steps, feature mimicry",
        *table(by_run, budgets, with_steps=True),
        f"## Objectives and settings: {SHORT} steps, the student of `auto-50`",
        *table(by_run, [("auto-50", SHORT), *((name, SHORT) for name in others)]),
        f"Embeddings of {NARROW} numbers instead of 256, the student of `manual-50`:",
        *table(by_run, [("manual-50", SHORT), *((f"narrow-{name}", SHORT) for name in NARROW_RATES)]),
        "![divergence and accuracy over steps](claims.svg)",
    ]
    (RESULTS / "claims.md").write_text("\n".join(parts) + "\n")
    curves(by_run)


def table(by_run: Runs, keys: Iterable[tuple[str, int]], with_steps: bool = False) -> list[str]:
    teachers = {lines[0]["teacher"]: lines[0] for (name, _), lines in by_run.items() if name.startswith("teacher-")}
    rows = [_row(f"{key[0]}, {key[1]}" if with_steps else key[0], by_run[key], teachers) for key in keys if key in by_run]
    return ["", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows, ""]


def _row(name: str, lines: Sequence[Line], teachers: dict[str, Line]) -> str:
    teacher = teachers[lines[0]["teacher"]]
    trained = "curve" in lines[0]
    cells = [
        name,
        str(len(lines)) if trained else "",
        _spread([100 * line["kept_of_blocks"] for line in lines]) if trained else "",
        f"{mean(line['macs'] for line in lines) / 1e6:.1f}M",
        f"{_before(lines)} {_spread([line['curve'][-1]['kl'] for line in lines], 3)}" if trained else "",
        _percent(lines, "picture-subgroup", "top1"),
        _percent(lines, "style-subgroup", "top1"),
        _percent(lines, "style-retrieval", "text_to_image_r10"),
        _percent(lines, "concept-subgroup", "top1"),
        _spread([100 * distant_share(line, teacher) for line in lines], 0) if trained else "",
        _spread([line["curve"][-1]["seconds"] for line in lines], 0) if trained else "",
    ]
    return f"| {' | '.join(cells)} |"


def _before(lines: Sequence[Line]) -> str:
    """Return the divergence before the first step of a student that is as small as at the end then."""
    small = not any(word in lines[0]["run"] for word in ("frozen", "joint", "paper-auto"))
    return f"{mean(line['curve'][0]['kl'] for line in lines):.2f}," if small else ""


def distant_share(line: Line, teacher: Line) -> float:
    """Return the mean over the distant styles of the top-1 as a share of the teacher's."""
    return mean(line["scores"][style]["top1"] / teacher["scores"][style]["top1"] for style in DISTANT)


def _percent(lines: Sequence[Line], task: str, metric: str) -> str:
    return _spread([100 * line["scores"][task][metric] for line in lines])


def _spread(values: Sequence[float], digits: int = 1) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{mean(values):.{digits}f}" + (f" ({low} to {high})" if low != high else "")


MEASURES: dict[str, Callable[[Line], float]] = {
    "KL": lambda line: -float(line["curve"][-1]["kl"]),
    "held-out pictures": lambda line: float(line["scores"]["picture-subgroup"]["top1"]),
    "style top-1": lambda line: float(line["scores"]["style-subgroup"]["top1"]),
    "style R@10": lambda line: float(line["scores"]["style-retrieval"]["text_to_image_r10"]),
}
"""Larger is better."""


def verdicts(by_run: Runs) -> list[str]:
    """Compare automatic students with manual ones of the same size."""
    rows = ["| size | MACs, automatic and manual | " + " | ".join(MEASURES) + " |", "|---" * (2 + len(MEASURES)) + "|"]
    for size in STUDENTS:
        auto, manual = by_run.get((f"auto-{size}", SHORT), []), by_run.get((f"manual-{size}", SHORT), [])
        if auto and manual:
            macs = " and ".join(f"{mean(line['macs'] for line in lines) / 1e6:.1f}M" for lines in (auto, manual))
            answers = " | ".join(_better(auto, manual, measure) for measure in MEASURES.values())
            rows.append(f"| {size}% | {macs} | {answers} |")
    return ["Is automatic better than manual? Disjoint: no seed of one is within the range of the other.", "", *rows, ""]


def _better(auto: Sequence[Line], manual: Sequence[Line], measure: Callable[[Line], float]) -> str:
    ours, theirs = [measure(line) for line in auto], [measure(line) for line in manual]
    answer = "yes" if mean(ours) > mean(theirs) else "no" if mean(ours) < mean(theirs) else "equal"
    disjoint = min(len(ours), len(theirs)) > 1 and (min(ours) > max(theirs) or max(ours) < min(theirs))
    return answer + (", disjoint" if disjoint else "")


CURVES = (("leading-50", MIDDLE), ("manual-50", MIDDLE), ("auto-50", MIDDLE), ("scratch-50", MIDDLE), ("paper-manual-50", MIDDLE))


def curves(by_run: Runs) -> None:
    """Draw divergence and accuracy over steps at a half. A band is the range over the seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    for panel, measure, factor in zip(panels, ("kl", "top1"), (1, 100), strict=True):
        for key in CURVES:
            if key in by_run:
                _draw(panel, key[0], by_run[key], measure, factor)
        panel.set_xlabel("steps")
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("KL to the teacher's affinities, held-out pairs")
    panels[1].set_ylabel("sub-group top-1 of an unseen style, percent")
    if panels[1].lines:
        panels[1].legend(fontsize="small")
    figure.savefig(RESULTS / "claims.svg", metadata={"Date": None})


def _draw(panel: Any, name: str, lines: Sequence[Line], measure: str, factor: float) -> None:
    steps = [moment["step"] for moment in lines[0]["curve"]]
    values_SM = factor * np.array([[moment[measure] for moment in line["curve"]] for line in lines])
    [drawn] = panel.plot(steps, values_SM.mean(0), label=name)
    panel.fill_between(steps, values_SM.min(0), values_SM.max(0), color=drawn.get_color(), alpha=0.15)


if __name__ == "__main__":
    main()
