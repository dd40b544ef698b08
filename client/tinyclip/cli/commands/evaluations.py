"""`tinyclip-client models evaluate`: scores of a model, beside another's on the same images."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tinyclip._resources import evaluations as calls
from tinyclip.cli.display.console import console, messages, new_table, print_json, print_table
from tinyclip.cli.display.numbers import MISSING, number, percent
from tinyclip.cli.display.progress import progress_bar
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, NoWait, Timeout, connect
from tinyclip.errors import InputError
from tinyclip.schemas import Evaluation, EvaluationState, Scores
from tinyclip.specfile import absolute_model, load_tasks

_PERCENTAGES = {
    "top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class",
    "image_to_text_r1": "image to text R@1", "image_to_text_r5": "image to text R@5", "image_to_text_r10": "image to text R@10",
    "text_to_image_r1": "text to image R@1", "text_to_image_r5": "text to image R@5", "text_to_image_r10": "text to image R@10",
}
_NUMBERS = {
    "probe_c": "probe's C", "ms_per_image": "ms per image", "samples": "images", "texts": "texts",
    "train_samples": "training images", "skipped": "skipped", "skipped_shards": "skipped shards",
}


def evaluate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="emoji@best, ViT-B-32/laion2b_s34b_b79k, hf-hub:ORG/NAME or local-dir:PATH.")
    ],
    task: Annotated[Path, typer.Option(help="YAML: a task, a list of them, or a job's spec with its tasks.")],
    against: Annotated[str | None, typer.Option(help="A model to evaluate on the same images, such as the teacher.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the API's object with all scores to this file.")] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 24 * 3600.0,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on zero-shot, retrieval and linear-probe tasks."""
    tasks, holdout = load_tasks(task)
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InputError(f"--out {out}", "name a file in an existing folder")  # now, not after hours of work
    resolved = absolute_model(against) if against is not None else None
    with connect(context) as client:
        create = calls.create(absolute_model(model), tasks, against=resolved, holdout=holdout)
        evaluation, response = client.send_with_response(create)
        for warning in evaluation.warnings:
            messages().print(f"warning: {warning}", markup=False)
        if not no_wait:
            with progress_bar(f"evaluating {evaluation.model}") as show:
                client.evaluations.wait(evaluation.id, timeout=timeout, on_progress=lambda now: show(now.progress))
            evaluation, response = client.send_with_response(calls.get(evaluation.id))
    if out is not None:
        _write(out, response.text)
    if as_json:
        print_json(response.text)
    else:
        _show(evaluation)
    raise typer.Exit(FAILED if evaluation.state is EvaluationState.FAILED else 0)


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}", f"{error.strerror}; --json prints the same") from error


def _show(evaluation: Evaluation) -> None:
    out = console()
    message = f": {evaluation.message}" if evaluation.message else ""
    out.print(f"{evaluation.id} {evaluation.model} {evaluation.state}{message}", markup=False)
    if not evaluation.results:
        return
    names = (evaluation.model, *([evaluation.against] if evaluation.against else []))
    table = new_table(out, "task", "percent", *names, right=names)
    for task, scores in evaluation.results.items():
        for metric, label in {**_PERCENTAGES, **_NUMBERS}.items():
            values = [metrics.get(metric) for metrics in _per_model(scores)]
            if values[0] is not None and (metric not in ("skipped", "skipped_shards") or any(values)):
                table.add_row(task, label, *(_cell(metric, value) for value in values))
        _add_sizes(table, task, scores)
    print_table(out, table)
    for task, scores in evaluation.results.items():
        if scores.student.get("worst_classes"):
            _show_worst_classes(out, task, names, scores)


def _add_sizes(table: Table, task: str, scores: Scores) -> None:
    """Add rows with the metrics of a model's nested embeddings at smaller sizes."""
    sizes = [metrics.get("by_size", {}) for metrics in _per_model(scores)]
    for size in dict.fromkeys(size for found in sizes for size in found):
        for metric, label in _PERCENTAGES.items():
            values = [found.get(size, {}).get(metric) for found in sizes]
            if any(value is not None for value in values):
                table.add_row(f"{task}, {size} numbers", label, *(_cell(metric, value) for value in values))


def _show_worst_classes(out: Console, task: str, names: tuple[str, ...], scores: Scores) -> None:
    """Print the model's worst classes and the other model's accuracy on them."""
    table = new_table(out, f"{task}: worst classes", "images", *names, "mistaken for", right=("images", *names))
    for worst in scores.student["worst_classes"]:
        mistaken = ", ".join(f"{other['class']} {percent(other['share'])}" for other in worst["mistaken_for"])
        others = [_class_accuracy(metrics, worst["row"]) for metrics in _per_model(scores)[1:]]
        table.add_row(str(worst["class"]), str(worst["samples"]), percent(worst["top1"]), *others, mistaken)
    print_table(out, table)


def _per_model(scores: Scores) -> list[dict[str, Any]]:
    return [scores.student, *([scores.teacher] if scores.teacher is not None else [])]


def _class_accuracy(metrics: dict[str, Any], row: int) -> str:
    per_class = metrics.get("per_class") or []
    return percent(per_class[row]) if row < len(per_class) and per_class[row] is not None else MISSING


def _cell(metric: str, value: Any) -> str:
    if value is None:
        return MISSING
    return percent(value) if metric in _PERCENTAGES else number(value)
