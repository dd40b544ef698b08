"""The table of `searches.py`: what searches found, beside the best uniform layout of each row.

`python bench/searches_report.py --students FOLDER [--out bench/results/searches_report.json]`, on a machine that does nothing
else: the latencies of all students are measured again, in turns.

A row with a limit of latency takes the uniform layout with the best quality on the held-out pictures among those within the
limit; a row with a quality to keep the fastest one that keeps it. That is the rule by which searches choose as well.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hardware import cpu
from rich.console import Console
from rich.table import Table
from searches import ENGINES, KEYS, RESULTS, ROWS, TASK, latencies
from tinyclip.schemas.layouts import Layout
from uniform_layouts import RESULTS as UNIFORM
from uniform_layouts import STEPS

Line = dict[str, Any]
JUDGED = {"style top-1": ("style-subgroup", "top1"), "style R@10": ("style-retrieval", "text_to_image_r10")}
DISTANT = "distant-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=Path, required=True, help="folder of the weights of uniform_layouts.py")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    searched = [line for line in RESULTS.lines() if line["recommended"] is not None]
    uniform = [line for line in UNIFORM.lines() if line["steps"] == STEPS]
    layouts = {key(line["recommended"]["layout"]): line["recommended"]["layout"] for line in searched}
    names = {line["layout"]: layout_of(arguments.students, line) for line in uniform}
    layouts |= {key(layout): layout for layout in names.values()}
    measured = dict(zip(layouts, latencies([Layout.model_validate(each) for each in layouts.values()]), strict=True))
    for line in uniform:
        line["ms"] = measured[key(names[line["layout"]])]
    for line in searched:
        line["ms"] = measured[key(line["recommended"]["layout"])]
    rows = [compared(line, [each for each in uniform if each["seed"] == line["seed"]]) for line in searched]
    show(rows)
    if arguments.out:
        facts = {"machine": cpu(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": 1, "torch": torch.__version__}
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def compared(line: Line, uniform: Sequence[Line]) -> Line:
    """Return the figures of a search's student and of the uniform one that the same rule selects; None if there is none."""
    engine = line["row"].rpartition("-")[0] if line["limit_ms"] is not None else ENGINES[0]
    needed = float(line["row"].split("-")[1]) * line["teacher"][TASK]["top1"] if line["limit_ms"] is None else 0.0
    within = [
        each for each in uniform
        if each["scores"][TASK]["top1"] >= needed and (line["limit_ms"] is None or ms_of(each, engine) <= line["limit_ms"])
    ]  # fmt: skip

    def rank(each: Line) -> float:
        return ms_of(each, engine) if line["limit_ms"] is None else -float(each["scores"][TASK]["top1"])

    best = min(within, key=rank, default=None)
    chosen = line["recommended"]
    own = {**figures(chosen["scores"], chosen["selected_by"]), "ms": ms_of(line, engine), "macs": chosen["macs"]}
    return {
        "row": line["row"], "seed": line["seed"], "engine": engine, "limit_ms": line["limit_ms"], "steps": line["steps"],
        "lineage_steps": chosen["lineage_steps"], "search": own,
        "uniform": None if best is None else {
            **figures(best["scores"], best["scores"]), "ms": ms_of(best, engine), "macs": best["macs"], "layout": best["layout"],
        },
    }  # fmt: skip


def figures(judged: Mapping[str, Any], selected: Mapping[str, Any]) -> Line:
    distant = [scores["top1"] for task, scores in judged.items() if task.startswith(DISTANT)]
    found = {name: judged[task][metric] for name, (task, metric) in JUDGED.items()}
    return {"selected by": selected[TASK]["top1"], **found, "distant top-1": round(statistics.fmean(distant), 4)}


def show(rows: Sequence[Line]) -> None:
    """Print means over seeds, of the search and of the uniform layout in one cell."""
    table = Table("row", "seeds", "ms", "selected by", *JUDGED, "distant top-1", "steps")
    for name in ROWS:
        of_row = [row for row in rows if row["row"] == name and row["uniform"] is not None]
        if of_row:
            qualities = ("selected by", *JUDGED, "distant top-1")
            cells = [both(of_row, "ms", 1, 2), *(both(of_row, quality, 100, 1) for quality in qualities)]
            table.add_row(name, str(len(of_row)), *cells, f"{statistics.fmean(row['steps'] for row in of_row):.0f}")
    Console(width=130).print(table)


def both(rows: Sequence[Line], column: str, scale: float, digits: int) -> str:
    """Return the means of the searches and of the uniform layouts."""
    means = [scale * statistics.fmean(row[who][column] for row in rows) for who in ("search", "uniform")]
    return " / ".join(f"{mean:.{digits}f}" for mean in means)


def ms_of(line: Line, engine: str) -> float:
    return float(line["ms"][str(KEYS[engine])])


def layout_of(folder: Path, line: Line) -> dict[str, Any]:
    saved = torch.load(folder / f"{line['layout']}-{line['steps']}-{line['seed']}.pt")
    return dict(saved["layout"])


def key(layout: Mapping[str, Any]) -> str:
    return json.dumps(layout, sort_keys=True)


if __name__ == "__main__":
    main()
