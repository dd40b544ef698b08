"""`tinyclip-client models evaluate`: the numbers of a model, beside another's on the same images."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tinyclip._client import Client
from tinyclip._resources import evaluations as calls
from tinyclip.cli._numbers import number, percent
from tinyclip.cli._problems import FAILED
from tinyclip.cli._session import AsJson, connect, console, messages, print_json, print_table, table
from tinyclip.errors import InputError
from tinyclip.schemas import Evaluation, EvaluationState, Scores
from tinyclip.specfile import absolute_model, load_tasks

_SHARES = {
    "top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class",
    "image_to_text_r1": "image to text R@1", "image_to_text_r5": "image to text R@5", "image_to_text_r10": "image to text R@10",
    "text_to_image_r1": "text to image R@1", "text_to_image_r5": "text to image R@5", "text_to_image_r10": "text to image R@10",
}
_FACTS = {
    "probe_c": "probe's C", "ms_per_image": "ms per image", "samples": "images", "texts": "texts",
    "train_samples": "training images", "skipped": "skipped", "skipped_shards": "skipped shards",
}
_NOTHING = "–"


def evaluate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="As emoji@best, ViT-B-32/laion2b_s34b_b79k, hf-hub:ORG/NAME, local-dir:PATH.")
    ],
    task: Annotated[Path, typer.Option(help="YAML: a task, a list of them, or a job's spec with its tasks.")],
    against: Annotated[str | None, typer.Option(help="A model that sees the same images, as the teacher.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the API's object with all numbers to this file.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the numbers.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 24 * 3600.0,
    as_json: AsJson = False,
) -> None:
    """Measure a model: zero-shot, retrieval, linear probe."""
    tasks, holdout = load_tasks(task)
    _expect_folder(out)
    named = absolute_model(against) if against is not None else None
    create = calls.create(absolute_model(model), tasks, against=named, holdout=holdout)
    with connect(context) as client:
        made, response = client.send_with_response(create)
        _show_warnings(made)
        if not no_wait:
            _wait(client, made, timeout)
            made, response = client.send_with_response(calls.get(made.id))
    if out is not None:
        _write(out, response.text)
    if as_json:
        print_json(response.text)
    else:
        _show(made)
    raise typer.Exit(FAILED if made.state is EvaluationState.FAILED else 0)


def _expect_folder(out: Path | None) -> None:
    """Known before the work is done, not after."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InputError(f"--out {out}", "name a file in a folder that is there")


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as failure:
        raise InputError(f"--out {out}", f"{failure.strerror}; --json prints the same") from failure


def _wait(client: Client, evaluation: Evaluation, timeout: float) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.percentage:.0f}%"))
    out = messages()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(f"evaluating {evaluation.model}", total=1.0)
        client.evaluations.wait(
            evaluation.id, timeout=timeout, on_progress=lambda now: bars.update(bar, completed=now.progress)
        )


def _show(evaluation: Evaluation) -> None:
    message = f": {evaluation.message}" if evaluation.message else ""
    console().print(f"{evaluation.id} {evaluation.model} {evaluation.state}{message}", markup=False)
    if not evaluation.results:
        return
    out = console()
    names = (evaluation.model, *([evaluation.against] if evaluation.against else []))
    made = table(out, "task", "percent", *names, right=names)
    for task, scores in evaluation.results.items():
        for metric, called in {**_SHARES, **_FACTS}.items():
            values = [found.get(metric) for found in _found(scores)]
            if values[0] is not None and (metric not in ("skipped", "skipped_shards") or any(values)):
                made.add_row(task, called, *(_cell(metric, value) for value in values))
    print_table(out, made)
    for task, scores in evaluation.results.items():
        if scores.student.get("worst_classes"):
            _show_worst(out, task, names, scores)


def _show_worst(out: Console, task: str, names: tuple[str, ...], scores: Scores) -> None:
    """The model's worst classes; beside them the other's accuracy on the same ones."""
    made = table(out, f"{task}: worst classes", "images", *names, "mistaken for", right=("images", *names))
    for worst in scores.student["worst_classes"]:
        mistaken = ", ".join(f"{other['class']} {percent(other['share'])}" for other in worst["mistaken_for"])
        others = [_of_class(found, worst["row"]) for found in _found(scores)[1:]]
        made.add_row(str(worst["class"]), str(worst["samples"]), percent(worst["top1"]), *others, mistaken)
    print_table(out, made)


def _found(scores: Scores) -> list[dict[str, Any]]:
    return [scores.student, *([scores.teacher] if scores.teacher is not None else [])]


def _of_class(found: dict[str, Any], row: int) -> str:
    per_class = found.get("per_class") or []
    return percent(per_class[row]) if row < len(per_class) and per_class[row] is not None else _NOTHING


def _cell(metric: str, value: Any) -> str:
    if value is None:
        return _NOTHING
    return percent(value) if metric in _SHARES else number(value)


def _show_warnings(evaluation: Evaluation) -> None:
    for warning in evaluation.warnings:
        messages().print(f"warning: {warning}", markup=False)
