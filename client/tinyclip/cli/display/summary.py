"""Tables of models: a job's teacher and students, a comparison, or a plan, with sizes and scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from tinyclip.cli.display.console import new_table
from tinyclip.cli.display.numbers import MISSING, count, percent, with_embedding
from tinyclip.schemas import Comparison, Job, Plan, StudentSummary

_METRIC_PAIRS = (("top1", "top5", "top-1 / top-5"), ("text_to_image_r1", "text_to_image_r10", "R@1 / R@10"))
"""The two metrics of a task that a table shows, by the kind of task that has them, and their heading."""
_KEPT_METRICS = {"top1": "top-1", "text_to_image_r10": "R@10"}
"""The metric of a task whose share of the teacher's is shown, and its heading."""
TEXT_PARAMS = "text params (token embedding)"


@dataclass(frozen=True)
class Row:
    """One model of a table."""

    name: str
    sizes: tuple[str, str, str]
    """Image params, text params with those of the token embedding, MACs."""
    evaluation: dict[str, dict[str, Any]]
    """Metrics by task."""
    agreement: str = MISSING
    """KL divergence from the teacher's affinities at the start of the stage and at its end."""
    teacher: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The teacher's metrics by task, of a student."""
    compatible: float | None = None
    """R@10 of searches across student and teacher, as a share of the teacher's own; None: not measured."""


def summary_tables(out: Console, job: Job, teacher: StudentSummary | None) -> list[Table]:
    """Return tables of a job's teacher and students."""
    return _tables(out, list(_rows_of_job(job, teacher)))


def comparison_tables(out: Console, comparison: Comparison) -> list[Table]:
    """Return tables of several models, each below its teacher."""
    return _tables(out, list(_rows_of_models(comparison)))


def plan_table(out: Console, plan: Plan) -> Table:
    """Return a table of a plan's teachers and stages."""
    numbers = ("image params", TEXT_PARAMS, "MACs", "lr", "steps", "samples", "device-hours")
    table = new_table(out, "model", "inherit", *numbers, right=numbers)
    several = len(plan.teachers) > 1
    for at, teacher in zip(plan.spec.every_teacher(), plan.teachers, strict=False):
        table.add_row(f"teacher {at.spec.model}" if several else "teacher", "", *_sizes(teacher), "", "", "", "")
    if plan.teacher is not None and not plan.teachers:  # from an older server
        table.add_row("teacher", "", *_sizes(plan.teacher), "", "", "", "")
    for stage in plan.stages:
        lr = MISSING if stage.lr is None else str(stage.lr) if stage.lr == "auto" else f"{stage.lr:g}"
        cost = str(stage.steps), count(stage.samples), f"{stage.device_hours:.3g}"
        how = " ".join(part for part in (stage.inherit, stage.select or stage.search) if part)
        table.add_row(stage.name, how, *_sizes(stage.student), lr, *cost)
    return table


def _tables(out: Console, rows: list[Row]) -> list[Table]:
    """Return one table with the first task of each kind; if there are more tasks, a second one with a row for each."""
    tasks = list(dict.fromkeys(task for row in rows for task in row.evaluation))
    first_of_kind = {_heading(task, rows): task for task in reversed(tasks)}
    chosen = [task for task in tasks if task in first_of_kind.values()]
    return [_models_table(out, rows, chosen)] + ([_tasks_table(out, rows, tasks)] if len(tasks) > len(chosen) else [])


def _tasks_table(out: Console, rows: list[Row], tasks: list[str]) -> Table:
    names = tuple(row.name for row in rows)
    table = new_table(out, "task", "numbers", *names, right=names)
    for task in tasks:
        table.add_row(task, _heading(task, rows), *(_pair(row.evaluation.get(task, {})) for row in rows))
    return table


def _models_table(out: Console, rows: list[Row], tasks: list[str]) -> Table:
    timed = any(_milliseconds(row) != MISSING for row in rows)
    measured = any(row.agreement != MISSING for row in rows)
    headings = (f"{task} {_heading(task, rows)}".rstrip() for task in tasks)
    numbers = ["image params", TEXT_PARAMS, "MACs", *headings]
    kept = {task: label for task in tasks if (label := _kept_label(task, rows))}
    if kept:
        numbers.append(f"kept {' / '.join(kept.values())}")
    if measured:
        numbers.append("KL to teacher")
    compatible = any(row.compatible is not None for row in rows)
    if compatible:
        numbers.append("R@10 across models")
    if timed:
        numbers.append("ms per image")
    table = new_table(out, "model", *numbers, right=tuple(numbers))
    for row in rows:
        cells = [_pair(row.evaluation.get(task, {})) for task in tasks]
        cells += [_kept(row, list(kept))] if kept else []
        cells += [row.agreement] if measured else []
        cells += [MISSING if row.compatible is None else f"{100 * row.compatible:.1f}%"] if compatible else []
        table.add_row(row.name, *row.sizes, *cells, *([_milliseconds(row)] if timed else []))
    return table


def _rows_of_job(job: Job, teacher: StudentSummary | None) -> Iterator[Row]:
    of_teacher = {
        task: scores.teacher for stage in job.stages for task, scores in stage.evaluation.items() if scores.teacher is not None
    }
    if teacher is not None or of_teacher:
        yield Row("teacher", _sizes(teacher), of_teacher)
    for stage in job.stages:
        scores = {task: scores.student for task, scores in stage.evaluation.items()}
        yield Row(stage.name, _sizes(stage.student), scores, _agreement(stage.metrics.get("agreement", {})), of_teacher)


def _rows_of_models(comparison: Comparison) -> Iterator[Row]:
    teacher = None
    for model in comparison.models:
        if model.teacher_evaluation and model.teacher != teacher:
            teacher = model.teacher
            yield Row(f"teacher {teacher or ''}".rstrip(), _sizes(None), model.teacher_evaluation)
        text = with_embedding(model.params.text, model.params.text_without_embedding)
        sizes = (count(model.params.image), text, count(model.macs))
        row = Row(f"{model.name}@{model.version}", sizes, model.evaluation, teacher=model.teacher_evaluation)
        yield replace(row, compatible=model.compatible_share)


def _sizes(summary: StudentSummary | None) -> tuple[str, str, str]:
    """Return image params, text params with those of the token embedding, and MACs."""
    if summary is None:
        return (MISSING, MISSING, MISSING)
    about = "~" if summary.estimated else ""  # the target of an automatic stage before its prune step
    text = with_embedding(summary.text_params, summary.text_params_without_embedding, about)
    return (about + count(summary.image_params), text, about + count(summary.macs))


def _heading(task: str, rows: list[Row]) -> str:
    """Return the heading of a task's pair of metrics; empty if it has none of the known ones."""
    scores: dict[str, Any] = next(row.evaluation[task] for row in rows if task in row.evaluation)
    return next((heading for first, _, heading in _METRIC_PAIRS if first in scores), "")


def _pair(scores: dict[str, Any]) -> str:
    for first, second, _ in _METRIC_PAIRS:
        if first in scores:
            return " / ".join(percent(scores[key]) if key in scores else MISSING for key in (first, second))
    return MISSING


def _kept_label(task: str, rows: list[Row]) -> str:
    """Return the name of the metric that students keep a share of; empty if there is no teacher to compare with."""
    for row in rows:
        for metric, label in _KEPT_METRICS.items():
            if row.teacher.get(task, {}).get(metric) and metric in row.evaluation.get(task, {}):
                return label
    return ""


def _kept(row: Row, tasks: list[str]) -> str:
    """Return a student's metrics as shares of its teacher's."""
    if not row.teacher:
        return MISSING
    shares = []
    for task in tasks:
        own, of_teacher = row.evaluation.get(task, {}), row.teacher.get(task, {})
        metric = next((m for m in _KEPT_METRICS if of_teacher.get(m) and m in own), None)
        shares.append(MISSING if metric is None else f"{100 * own[metric] / of_teacher[metric]:.1f}%")
    return " / ".join(shares)


def _agreement(measured: dict[str, Any]) -> str:
    return f"{measured['start_kl']:.3g} → {measured['kl']:.3g}" if measured.keys() >= {"start_kl", "kl"} else MISSING


def _milliseconds(row: Row) -> str:
    found = [scores["ms_per_image"] for scores in row.evaluation.values() if "ms_per_image" in scores]
    return f"{found[0]:.3g}" if found else MISSING
