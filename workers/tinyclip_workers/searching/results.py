"""The result of a search: the Pareto front, the recommended student, and the reason in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyclip.artifacts.searches import Quality, SearchRecord, SearchResult, TrialRecord
from tinyclip.schemas.jobs import JobState
from tinyclip.schemas.searches import Candidate

from tinyclip_workers.searching.costs import Cost, Costs, Latency, Limit
from tinyclip_workers.searching.quality import Goal, Qualities, value_of
from tinyclip_workers.searching.reasons import Facts, reason
from tinyclip_workers.searching.sweeps import importance

FINALISTS = 6
"""Trials whose versions are measured at most."""


@dataclass(frozen=True)
class Judged:
    """A finished trial with its costs, and its qualities in the engine whose latency is limited."""

    trial: TrialRecord
    costs: dict[Cost, float]
    quality: Quality
    margin: float
    violations: list[str]

    def values(self, goals: Sequence[Goal], costs: Sequence[Cost]) -> tuple[float, ...]:
        """Return what counts, all to be as large as possible."""
        qualities = [value_of(self.quality, goal) or 0.0 for goal in goals]
        return (*qualities, *(-self.costs[cost] for cost in costs))


def finalists(record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> list[int]:
    """Return the numbers of the trials to measure: of the front those that come nearest to the constraints.

    Measurements change the front, and what is on it then is measured too.
    """
    judge = _Judge(record, latency, done, measured=True)
    order = sorted(judge.front, key=judge.rank)
    return sorted(judged.trial.number for judged in order[:FINALISTS])


def result(record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> SearchResult:
    """Return the front, feasible or not, and the best feasible student."""
    judge = _Judge(record, latency, done, measured=True)
    feasible = sorted((judged for judged in judge.judged if not judged.violations), key=judge.rank)
    recommended = feasible[0] if feasible else None
    quality = {judged.trial.number: judged.margin for judged in judge.judged}
    shares, note = importance(record.post, done, quality)
    front = sorted(judge.front, key=lambda judged: (judged.costs.get(judge.costs.minimized, 0.0), judged.trial.number))
    if recommended is not None and recommended not in front:
        front.append(recommended)
    return SearchResult(
        front=[judge.candidate(judged) for judged in front],
        recommended=judge.candidate(recommended) if recommended is not None else None,
        reason=" ".join(part for part in (reason(judge.facts(recommended)), note) if part),
        importance=shares,
    )


class _Judge:
    """The comparison of the finished trials of a search."""

    def __init__(self, record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord], *, measured: bool) -> None:
        self.record, self.measured = record, measured
        self.costs, self.qualities = Costs.of(record, latency, done), Qualities.of(record)
        self.compared = self.costs.distinct if record.post.constraints else []
        finished = [trial for trial in done if trial.state == JobState.SUCCEEDED and trial.model is not None]
        self.judged = [found for trial in finished if (found := self._judge(trial)) is not None]

    @property
    def front(self) -> list[Judged]:
        """The students that no other one is as good as in everything and better in something."""
        values = {judged.trial.number: judged.values(self.qualities.goals, self.compared) for judged in self.judged}

        def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
            return one != other and all(own >= others for own, others in zip(one, other, strict=True))

        return [judged for judged in self.judged if not any(dominates(v, values[judged.trial.number]) for v in values.values())]

    def rank(self, judged: Judged) -> tuple[float, ...]:
        """Return the key by which the recommended student is the smallest: feasible first, then the nearest."""
        cost = judged.costs.get(self.costs.minimized, 0.0)
        by_goal = (cost, -judged.margin) if self.qualities.is_constrained else (-judged.margin, cost)
        return (float(bool(judged.violations)), self._distance(judged), *by_goal, judged.trial.number)

    def candidate(self, judged: Judged) -> Candidate:
        trial = judged.trial
        assert trial.model is not None  # finished
        return Candidate(
            model=trial.model, trial=trial.number, params=trial.params or 0, macs=trial.macs or 0,
            measurements=trial.measurements, is_feasible=not judged.violations, violations=judged.violations,
        )  # fmt: skip

    def facts(self, recommended: Judged | None) -> Facts:
        return Facts(self.record.post, self.costs, self.qualities, self.judged, recommended)

    def _judge(self, trial: TrialRecord) -> Judged | None:
        quality = self._quality(trial)
        margin = self.qualities.margin(trial, quality=quality)
        values = {cost: self.costs.of_trial(trial, cost, measured=self.measured) for cost in self.compared}
        if margin is None or any(value is None for value in values.values()):
            return None
        costs = {cost: value for cost, value in values.items() if value is not None}
        violations = [exceeded(limit, costs[limit.cost]) for limit in self.costs.limits if costs[limit.cost] > limit.max]
        violations += self._missed(trial, quality)
        return Judged(trial, costs, quality, margin, violations)

    def _quality(self, trial: TrialRecord) -> Quality:
        """Return the qualities in the engine of the first limited latency, if they were measured there."""
        engines = [limit.cost.engine for limit in self.costs.limits if limit.cost.name == "latency_ms"]
        found = [m.quality for m in trial.measurements if self.measured and m.quality and m.engine in engines[:1]]
        return found[0] if found else trial.quality

    def _missed(self, trial: TrialRecord, quality: Quality) -> list[str]:
        missed = []
        for goal in self.qualities.goals if self.qualities.is_constrained else ():
            value, needed = value_of(quality, goal), goal.needed(self.qualities.of_teacher(trial, goal))
            if value is not None and needed is not None and value < needed:
                missed.append(f"{goal} is {value:.3f}, less than {needed:.3f}")
        return missed

    def _distance(self, judged: Judged) -> float:
        over = [judged.costs[limit.cost] / limit.max - 1 for limit in self.costs.limits]
        return max([0.0, *over, *([1 - judged.margin] if self.qualities.is_constrained else [])])


def exceeded(limit: Limit, value: float) -> str:
    """Return the violation of a limit, with both numbers."""
    return f"{limit.cost.describe(value)}, more than {limit.cost.number(limit.max)}"
