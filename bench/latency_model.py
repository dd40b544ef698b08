"""Errors of the latency model: `python bench/latency_model.py [--layouts 48] [--out bench/results/latency_model.json]`.

For students of the two teachers of `examples/emoji` (of the ResNet with more bottlenecks, so that depth varies), uniform and
pruned: layouts are measured in torch fp32 and OpenVINO int8, at batch 1 and 8, with one thread. The model is fitted to some of
them, and its errors are those on the others. OpenVINO converts and quantises each layout, which takes seconds, so it has half as
many.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import cpu
from rich.console import Console
from rich.table import Table
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.costs.measuring import SLOW_TO_BUILD, measure_layouts
from tinyclip_workers.costs.model import MIN_LAYOUTS, Key, fit, predict, relative_errors
from tinyclip_workers.costs.sampling import sample_layouts

EXAMPLES = Path(__file__).parent.parent / "examples" / "emoji"
BOTTLENECKS = [2, 2, 3, 2]
ENGINES = ("torch", "openvino-int8")
BATCHES = (1, 8)
GROUP = 36
"""Layouts that are measured in turns."""
TARGETS = {"median": 0.05, "p90": 0.12}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", type=int, default=48, help="to fit to; half as many more are predicted")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--families", nargs="+", default=["vit", "resnet"], choices=["vit", "resnet"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measurements", type=Path, help="JSON lines: what was measured, and is not measured again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in arguments.families:
        for engine in arguments.engines:
            rows += errors_of(name, engine, arguments.layouts, arguments.measurements)
    print_table(rows)
    if arguments.out:
        facts = {"machine": cpu(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": 1, "torch": torch.__version__}
        arguments.out.write_text(json.dumps({**facts, "targets": TARGETS, "rows": rows}, indent=1) + "\n")


def errors_of(name: str, engine: str, count: int, measurements: Path | None) -> list[Row]:
    """Return a row for each batch size and kind of layout: errors of those that were not fitted."""
    fitted = max(MIN_LAYOUTS, count // 2 if engine in SLOW_TO_BUILD else count)
    layouts = sample_layouts(largest(name), {"image"}, fitted + fitted // 2, 0)
    keys = [Key(engine, "image", batch, 1) for batch in BATCHES]
    ms = list(measured(name, layouts, keys, measurements))
    rows = []
    for key in keys:
        latencies = [of_layout[str(key)] for of_layout in ms]
        cost = fit(key, layouts[:fitted], latencies[:fitted])
        others = layouts[fitted:]
        errors = relative_errors([predict(cost, key, layout) for layout in others], latencies[fitted:])
        kinds = np.array([kind_of(layout) for layout in others])
        for kind in sorted(set(kinds)):
            of_kind = errors[kinds == kind]
            rows.append({
                "family": name, "layouts": kind, "engine": engine, "batch": key.batch,
                "fitted": fitted, "predicted": len(of_kind),
                "median": round(float(np.median(of_kind)), 4), "p90": round(float(np.quantile(of_kind, 0.9)), 4),
                "cross_validated": {"median": round(cost.median_error, 4), "p90": round(cost.p90_error, 4)},
                "ms": [round(min(latencies), 3), round(max(latencies), 3)],
            })  # fmt: skip
    return rows


def largest(name: str) -> Layout:
    layout = Layout.model_validate_json((EXAMPLES / "teachers" / name / "layout.json").read_text())
    if name == "vit":
        return layout
    return layout.model_copy(update={"image": layout.image.model_copy(update={"layers": BOTTLENECKS})})


def kind_of(layout: Layout) -> str:
    if layout.image.kind == "resnet":
        return "all"
    return "uniform" if layout.is_uniform else "pruned"


def measured(name: str, layouts: list[Layout], keys: list[Key], measurements: Path | None) -> Iterator[dict[str, float]]:
    """Yield milliseconds by key of each layout, those first that an earlier run has measured."""
    wanted = {str(key) for key in keys}
    known = read_measurements(measurements)
    for start in range(0, len(layouts), GROUP):
        group = layouts[start : start + GROUP]
        missing = [layout for layout in group if not wanted <= known.get(layout.model_dump_json(), {}).keys()]
        with tempfile.TemporaryDirectory() as cache:
            found = measure_layouts(missing, [keys] * len(missing), Path(cache), torch.device("cpu"))
        for layout, ms in zip(missing, found, strict=True):
            known[layout.model_dump_json()] = known.get(layout.model_dump_json(), {}) | ms
            if measurements is not None:
                with measurements.open("a") as file:
                    file.write(json.dumps({"layout": layout.model_dump(mode="json"), "ms": ms}) + "\n")
        print(f"{name} {keys[0].engine}: {start + len(group)} of {len(layouts)} layouts", flush=True)
        yield from (known[layout.model_dump_json()] for layout in group)


def read_measurements(file: Path | None) -> dict[str, dict[str, float]]:
    known: dict[str, dict[str, float]] = {}
    for line in file.read_text().splitlines() if file is not None and file.exists() else []:
        row = json.loads(line)
        key = Layout.model_validate(row["layout"]).model_dump_json()
        known[key] = known.get(key, {}) | row["ms"]
    return known


def print_table(rows: list[Row]) -> None:
    table = Table(title="relative error of predicted latencies, one thread")
    for column in ("students", "engine", "batch", "fitted", "predicted", "median", "90th percentile", "cross-validated"):
        table.add_column(column, justify="left" if column in ("students", "engine") else "right")
    for row in rows:
        both = row["cross_validated"]
        table.add_row(
            f"{row['family']}, {row['layouts']}", row["engine"], str(row["batch"]), str(row["fitted"]), str(row["predicted"]),
            f"{row['median']:.1%}", f"{row['p90']:.1%}", f"{both['median']:.1%}, {both['p90']:.1%}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
