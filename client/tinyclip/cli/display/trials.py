"""Tables of a search: its trials, the candidates on the front, their measurements, and the importance of settings."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tinyclip.cli.display.console import new_table
from tinyclip.cli.display.goals import Goal, Quality, goals_of, score
from tinyclip.cli.display.numbers import MISSING, count, duration, number
from tinyclip.schemas import Candidate, Search, Trial

_WHOLE = 0.995
"""A share of a tower's weights above this one is shown as the whole tower."""


def trials_table(out: Console, search: Search) -> Table:
    """Return the trials, below the teacher if its qualities are known."""
    goals = goals_of(search.post)
    headings = [_heading(goal, search.teacher_quality) for goal in goals]
    right = ("trial", "rung", "params", *headings, "device time")
    table = new_table(out, "trial", "rung", "chosen", "state", "params", *headings, "device time", right=right)
    of_teacher = [goal.value(search.teacher_quality) for goal in goals]
    if any(value is not None for value in of_teacher):
        scores = [MISSING if value is None else score(value) for value in of_teacher]
        table.add_row("", "", "teacher", "", "", *scores, "")
    for trial in search.trials:
        table.add_row(*_trial(trial, search, goals))
    return table


def front_tables(out: Console, search: Search) -> Iterator[Table]:
    """Yield the candidates on the front, and what was measured of them."""
    goals = goals_of(search.post)
    yield _front(out, search, goals)
    if any(candidate.measurements for candidate in search.front):
        yield _measurements(out, search, goals)


def importance_table(out: Console, search: Search) -> Table:
    table = new_table(out, "setting", "share of the variation", right=("share of the variation",))
    for path, share in sorted(search.importance.items(), key=lambda each: -each[1]):
        table.add_row(path, f"{100 * share:.0f}%")
    return table


def chosen(settings: dict[str, Any], vary: Sequence[str]) -> str:
    """Return what a search has chosen for a trial: `image 42% in 6 blocks, text 60% in 3 blocks, optimizer.lr 0.0002`.

    A percentage is the share of the weights of the teacher's tower.
    """
    size = settings.get("size")
    parts = list(_sizes(size)) if isinstance(size, dict) else []
    parts += [f"{path} {number(settings[path])}" for path in vary if path in settings]
    before = settings.get("continues")
    return ", ".join([*parts, *([] if before is None else [f"continues trial {before}"])])


def _trial(trial: Trial, search: Search, goals: Sequence[Goal]) -> Iterator[str]:
    yield from (str(trial.number), str(trial.rung), chosen(trial.settings, list(search.post.vary)), trial.state)
    yield MISSING if trial.params is None else count(trial.params)
    yield from _qualities(trial.quality, search.teacher_quality, goals)
    yield duration(3600 * trial.device_hours)


def _front(out: Console, search: Search, goals: Sequence[Goal]) -> Table:
    """Return the front from the smallest student to the largest; the recommended one has a star."""
    headings = [_heading(goal, search.teacher_quality) for goal in goals]
    right = ("trial", "params", "bytes", *headings)
    table = new_table(out, "", "model", "trial", "params", "bytes", *headings, "meets the constraints", right=right)
    trials = {trial.number: trial for trial in search.trials}
    for candidate in sorted(search.front, key=lambda each: each.params):
        trial = trials.get(candidate.trial)
        size = trial.bytes if trial is not None else None
        star = "*" if search.recommended is not None and search.recommended.trial == candidate.trial else ""
        sizes = (count(candidate.params), MISSING if size is None else f"{count(size)}B")
        scores = _qualities(trial.quality if trial is not None else {}, search.teacher_quality, goals)
        table.add_row(star, _model(candidate), str(candidate.trial), *sizes, *scores, _meets(candidate))
    return table


def _measurements(out: Console, search: Search, goals: Sequence[Goal]) -> Table:
    """Return a row for each candidate and engine."""
    measured = [found for candidate in search.front for found in candidate.measurements]
    calls = list(dict.fromkeys(call for found in measured for call in found.latency_ms))
    latencies = [f"{call} ms" for call in calls]
    shown = [goal for goal in goals if any(found.quality for found in measured)]
    headings = [_heading(goal, search.teacher_quality) for goal in shown]
    table = new_table(out, "model", "engine", *latencies, "bytes", *headings, right=(*latencies, "bytes", *headings))
    for candidate in sorted(search.front, key=lambda each: each.params):
        for found in candidate.measurements:
            times = [f"{found.latency_ms[call]:.3g}" if call in found.latency_ms else MISSING for call in calls]
            size = MISSING if found.bytes is None else f"{count(found.bytes)}B"
            scores = _qualities(found.quality, search.teacher_quality, shown)
            table.add_row(_model(candidate), found.engine, *times, size, *scores)
    return table


def _heading(goal: Goal, teacher: Quality) -> str:
    return goal.name if goal.value(teacher) is None else f"{goal.name} (of teacher)"


def _qualities(quality: Quality, teacher: Quality, goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the value of each goal, with its share of the teacher's in brackets if that is known."""
    for goal in goals:
        value, of_teacher = goal.value(quality), goal.value(teacher)
        share = f" ({100 * value / of_teacher:.1f}%)" if value is not None and of_teacher else ""
        yield MISSING if value is None else score(value) + share


def _sizes(size: dict[str, Any]) -> Iterator[str]:
    for tower in ("image", "text"):
        share, layers = size.get(tower), size.get(f"{tower}_layers")
        if not isinstance(share, int | float) or not isinstance(layers, int | list):
            continue
        blocks = sum(layers) if isinstance(layers, list) else layers
        kept = "whole" if share >= _WHOLE else f"{100 * share:.0f}%"
        yield f"{tower} {kept} in {blocks} block{'' if blocks == 1 else 's'}"


def _model(candidate: Candidate) -> str:
    return f"{candidate.model.name}@{candidate.model.version}"


def _meets(candidate: Candidate) -> str:
    return "yes" if candidate.is_feasible else "; ".join(candidate.violations) or "no"
