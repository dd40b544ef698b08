"""Searches, their plans, results and events."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tinyclip.cli.display.console import console, new_table, print_next_page, print_table, short_time
from tinyclip.cli.display.front import front_chart
from tinyclip.cli.display.numbers import count, duration, number
from tinyclip.cli.display.trials import front_tables, importance_table, trials_table
from tinyclip.schemas import Page, Search, SearchEvent, SearchPlan

_LENGTHS = {1: ("",), 2: ("short", "whole"), 3: ("short", "longer", "whole")}
"""Names of the trainings of each rung, by the number of rungs."""


def show_search(search: Search) -> None:
    """Show a search with its trials and, as far as there is one, its result."""
    out = console()
    message = f": {search.message}" if search.message and search.message != search.reason else ""
    out.print(f"{search.id} {search.name} {search.state}{message}", markup=False)
    if search.trials:
        print_table(out, trials_table(out, search))
    for trial in search.trials:
        if trial.error:
            out.print(f"trial {trial.number}: {trial.error}", markup=False)
    if search.front:
        for table in front_tables(out, search):
            print_table(out, table)
    if (chart := front_chart(search, out.width, plain=not out.is_terminal)) is not None:
        out.print(chart)
    if search.reason:
        out.print(search.reason, markup=False)
    if search.importance:
        print_table(out, importance_table(out, search))


def show_searches(page: Page[Search]) -> None:
    out = console()
    table = new_table(out, "id", "name", "state", "phase", "device-hours", "created", right=("device-hours",))
    for search in page.items:
        created = short_time(out, search.created_at)
        table.add_row(search.id, search.name, search.state, search.phase, number(search.device_hours), created)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def show_plan(plan: SearchPlan, post: Mapping[str, Any] | None = None) -> None:
    """Show what a search would do at most; `post` is what was asked for."""
    out = console()
    out.print(f"at most {plan.trials} trials{_rungs(plan.trials_by_rung)}", markup=False)
    steps = "" if plan.steps is None else f"{count(plan.steps)} steps, "
    out.print(f"{steps}about {plan.device_hours:.3g} device-hours on {plan.plan.device}", markup=False)
    if plan.hours is not None:
        at_once = _at_once(post or {})
        how = "one trial after the other" if at_once == 1 else f"{at_once} trials at once"
        out.print(f"takes about {duration(3600 * plan.hours)}, {how}, if none waits for devices", markup=False)
    if _limits_latency(post or {}):
        out.print("not included: measuring latencies, of layouts before the trials and of the finalists after them", markup=False)
    for warning in plan.warnings:
        out.print(f"warning: {warning}", markup=False)


def show_event(event: SearchEvent, out: Console | None = None) -> None:
    line = f"{event.id:>5} {event.created_at.astimezone():%H:%M:%S} {event.type} {event.message}".rstrip()
    (out or console()).print(line, markup=False)


def _rungs(trials: list[int]) -> str:
    """Return `: 7 short, then 2 longer, then 3 whole trainings`; nothing if all are whole."""
    names = _LENGTHS.get(len(trials), tuple(f"of rung {rung}" for rung in range(len(trials))))
    parts = [f"{number} {name}" for number, name in zip(trials, names, strict=True)]
    return f": {', then '.join(parts)} trainings" if len(parts) > 1 else ""


def _at_once(post: Mapping[str, Any]) -> int:
    budget = post.get("budget")
    given = budget.get("at_once") if isinstance(budget, Mapping) else None
    return given if isinstance(given, int) else 1


def _limits_latency(post: Mapping[str, Any]) -> bool:
    constraints = post.get("constraints")
    return isinstance(constraints, list) and any(isinstance(each, Mapping) and each.get("latency_ms") for each in constraints)
