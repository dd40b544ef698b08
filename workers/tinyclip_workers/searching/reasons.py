"""The reason of a recommendation, or of its absence, in plain sentences with numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tinyclip.artifacts.searches import Quality, TrialRecord
from tinyclip.schemas.searches import SearchPost

from tinyclip_workers.searching.costs import Cost, Costs
from tinyclip_workers.searching.quality import Goal, Qualities, value_of
from tinyclip_workers.searching.sweeps import varied


class Compared(Protocol):
    """A finished trial with its costs and qualities."""

    @property
    def trial(self) -> TrialRecord: ...
    @property
    def costs(self) -> dict[Cost, float]: ...
    @property
    def quality(self) -> Quality: ...
    @property
    def margin(self) -> float: ...


@dataclass(frozen=True)
class Facts:
    """The facts that a reason is written from."""

    post: SearchPost
    costs: Costs
    qualities: Qualities
    finished: Sequence[Compared]
    recommended: Compared | None


def reason(facts: Facts) -> str:
    """Return why a student is recommended, or what comes nearest if none meets the constraints."""
    if not facts.finished:
        return "No trial has succeeded, so there is no student to recommend."
    if not facts.post.constraints:
        return _best_settings(facts)
    if facts.recommended is None:
        return _nearest(facts)
    return _smallest(facts, facts.recommended) if facts.qualities.is_constrained else _best(facts, facts.recommended)


def _best_settings(facts: Facts) -> str:
    best = facts.recommended
    assert best is not None  # nothing is constrained, so every finished trial is feasible
    values = ", ".join(f"{path} = {value}" for path, value in varied(facts.post, best.trial.settings).items())
    return f"{_name(best)} has the best quality of {len(facts.finished)} trials: {_qualities(facts, best)}, with {values}."


def _smallest(facts: Facts, best: Compared) -> str:
    """Return the sentence for the smallest student that keeps the quality."""
    facts_of_it = f"{_costs(facts, best)}; {_qualities(facts, best)}"
    text = f"{_name(best)} is the smallest student found that meets all constraints: {facts_of_it}."
    minimized = facts.costs.minimized
    whole = max(found.trial.rung for found in facts.finished)
    below = [found for found in facts.finished if found.costs[minimized] < best.costs[minimized]]
    smaller = [found for found in below if found.margin < 1 and found.trial.rung == whole]
    if smaller:
        nearest = max(smaller, key=lambda found: found.costs[minimized])
        text += f" The next smaller one, with {minimized.count(nearest.costs[minimized])}, has {_qualities(facts, nearest)}."
    return text


def _best(facts: Facts, best: Compared) -> str:
    """Return the sentence for the best quality within the limits."""
    within = sum(_is_within(facts, found) for found in facts.finished)
    facts_of_it = f"{_qualities(facts, best)}; {_costs(facts, best)}"
    return f"{_name(best)} has the best quality of {within} students within the limits: {facts_of_it}."


def _nearest(facts: Facts) -> str:
    """Return the sentences for constraints that no student meets: what the limits allow, and what the quality costs."""
    parts = []
    kept = [found for found in facts.finished if facts.qualities.is_constrained and found.margin >= 1]
    if kept and facts.costs.limits:
        smallest = min(kept, key=lambda found: found.costs[facts.costs.minimized])
        parts.append(f"the smallest student that keeps {_demand(facts)} has {_over(facts, smallest)} ({_name(smallest)})")
    within = [found for found in facts.finished if _is_within(facts, found)]
    if within:
        best = max(within, key=lambda found: found.margin)
        where = f"with {_over(facts, best)} " if facts.costs.limits else ""
        parts.append(f"{where}the best has {_qualities(facts, best)} ({_name(best)})")
    else:
        smallest = min(facts.finished, key=lambda found: max(_shares(facts, found)))
        parts.append(f"the smallest student found has {_over(facts, smallest)} ({_name(smallest)})")
    return f"No student meets all constraints ({_limits(facts)}): {'; '.join(parts)}."


def _name(found: Compared) -> str:
    model = found.trial.model
    assert model is not None  # finished
    return f"{model.name}@{model.version}"


def _limits(facts: Facts) -> str:
    limits = [f"{limit.cost} at most {limit.cost.number(limit.max)}" for limit in facts.costs.limits]
    return ", ".join([*limits, *([_demand(facts)] if facts.qualities.is_constrained else [])])


def _demand(facts: Facts) -> str:
    return " and ".join(
        f"{goal.keep:.0%} of the teacher's {goal}" if goal.keep is not None else f"{goal} of at least {goal.min:.3f}"
        for goal in facts.qualities.goals
    )


def _costs(facts: Facts, found: Compared) -> str:
    limits = {limit.cost: limit.max for limit in facts.costs.limits}
    return ", ".join(
        cost.describe(value) + (f" (limit {cost.number(limits[cost])})" if cost in limits else "")
        for cost, value in found.costs.items()
    )


def _over(facts: Facts, found: Compared) -> str:
    """Return the costs that are limited."""
    return " and ".join(limit.cost.count(found.costs[limit.cost]) for limit in facts.costs.limits)


def _qualities(facts: Facts, found: Compared) -> str:
    return ", ".join(_quality(facts, found, goal) for goal in facts.qualities.goals)


def _quality(facts: Facts, found: Compared, goal: Goal) -> str:
    value, teacher = value_of(found.quality, goal), facts.qualities.of_teacher(found.trial, goal)
    if value is None:
        return f"no {goal}"
    needed = f", {goal.min:.3f} needed" if goal.min is not None else f", {goal.keep:.0%} needed" if goal.keep is not None else ""
    share = f"{value / teacher:.1%} of the teacher's" if teacher else ""
    inner = ", ".join(part for part in (share, needed.lstrip(", ")) if part)
    return f"{goal} {value:.3f}" + (f" ({inner})" if inner else "")


def _is_within(facts: Facts, found: Compared) -> bool:
    return all(found.costs[limit.cost] <= limit.max for limit in facts.costs.limits)


def _shares(facts: Facts, found: Compared) -> list[float]:
    return [found.costs[limit.cost] / limit.max for limit in facts.costs.limits]
