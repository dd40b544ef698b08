"""A chart of a search: the quality of its trials over the cost that is to be small."""

import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from tinyclip.cli.display.goals import Cost, Goal, counted, goals_of, minimized
from tinyclip.cli.display.scatter import ASCII, LINES, Mark, scatter
from tinyclip.cli.display.texts import one_line, shortened
from tinyclip.schemas import Measurement, Search, Trial

_WIDTH = 78
_SIGNS = {False: (".", "o", "*"), True: ("·", "●", "★")}
"""Trials, those on the front, and the recommended one: of plain text, and of a terminal."""
_STYLES = ("", "cyan", "bold green")


def front_chart(search: Search, width: int = _WIDTH, *, plain: bool = True) -> Text | None:
    """Draw the trials of a search; None if no two of them have different costs. `plain`: in ASCII."""
    goal = next(iter(goals_of(search.post)), None)
    if goal is None:
        return None
    cost = minimized(search.post)
    points = _points(search, goal, cost)
    if not _differ(points) and cost.name == "latency_ms":
        cost = counted(search.post)
        points = _points(search, goal, cost)
    if not _differ(points):
        return None
    return _drawn(search, goal, cost, points, min(width, _WIDTH), plain)


def picture(chart: Text, title: str) -> str:
    """Return a chart as an SVG."""
    out = Console(file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor", width=_WIDTH)
    out.print(chart)
    return out.export_svg(title=one_line(title))


def _drawn(
    search: Search, goal: Goal, cost: Cost, points: Mapping[int, tuple[float, float]], width: int, plain: bool
) -> Text:
    of_teacher, signs, frame = goal.value(search.teacher_quality), _SIGNS[not plain], ASCII if plain else LINES
    scale = 100 / (of_teacher or 1)
    needed = goal.min if goal.min is not None else goal.keep * of_teacher if goal.keep and of_teacher else None
    ranked = sorted((_rank(search, trial), point) for trial, point in points.items())
    title = f"{goal.name} in %{' of the teacher' if of_teacher else ''}, over {cost}"
    chart = Text(shortened(one_line(title), width)).append("\n").append_text(scatter(
        [Mark(x, scale * y, signs[rank], _STYLES[rank]) for rank, (x, y) in ranked], width=width, frame=frame,
        x_label=cost.number, y_label=lambda value: f"{value:.1f}",
        x_limit=cost.limit, y_limit=None if needed is None else scale * needed,
    ))  # fmt: skip
    limits = (frame.limit_x if cost.limit is not None else "") + (frame.limit_y if needed is not None else "")
    hidden = sum(goal.value(trial.quality) is not None for trial in search.trials) - len(points)
    note = f"\n{hidden} trials without a measurement are not shown" if hidden else ""
    return chart.append(f"\n{_legend(signs, limits, has_front=bool(search.front))}{note}")


def _legend(signs: Sequence[str], limits: str, *, has_front: bool) -> str:
    names = zip(signs, ("other trials", "front", "recommended"), strict=True) if has_front else [(signs[0], "trials")]
    return "  ".join(f"{sign} {name}" for sign, name in [*names, *([(limits, "limits")] if limits else [])])


def _points(search: Search, goal: Goal, cost: Cost) -> Mapping[int, tuple[float, float]]:
    """Return cost and quality by trial."""
    measured: dict[int, Sequence[Measurement]] = {each.trial: each.measurements for each in search.front}
    measured |= {trial.number: trial.measurements for trial in search.trials if trial.measurements}
    found = ((trial, _point(trial, goal, cost, measured.get(trial.number, ()))) for trial in search.trials)
    return {trial.number: point for trial, point in found if point is not None}


def _point(trial: Trial, goal: Goal, cost: Cost, measurements: Sequence[Measurement]) -> tuple[float, float] | None:
    x, y = cost.of(trial, measurements), goal.value(trial.quality)
    return None if x is None or y is None else (x, y)


def _differ(points: Mapping[int, tuple[float, float]]) -> bool:
    return len({x for x, _ in points.values()}) > 1


def _rank(search: Search, trial: int) -> int:
    if search.recommended is not None and search.recommended.trial == trial:
        return 2
    return int(any(candidate.trial == trial for candidate in search.front))
