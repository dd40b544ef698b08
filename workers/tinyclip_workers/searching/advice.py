"""The advice of a search: trials to begin, finalists to measure, or the result.

It depends on the record alone: there is no clock, and random numbers are seeded by the record. Trials are advised in steps, each
from the trials of complete steps before, so the order in which trials of a step end is of no effect.
"""

from collections.abc import Sequence

from tinyclip.artifacts.searches import Advice, BeginTrial, Bound, SearchRecord, TrialRecord

from tinyclip_workers.searching.costs import Latency
from tinyclip_workers.searching.estimates import bounds
from tinyclip_workers.searching.quality import Qualities
from tinyclip_workers.searching.results import finalists, result
from tinyclip_workers.searching.size_search import Proposal, SizeSearch
from tinyclip_workers.searching.specs import with_settings
from tinyclip_workers.searching.sweeps import ask, grid


class ImpossibleSearch(ValueError):
    """Limits that no student of the teacher's family can meet."""

    def __init__(self, bounds: Sequence[Bound]) -> None:
        super().__init__("; ".join(bound.message for bound in bounds))
        self.bounds = bounds


def advise(record: SearchRecord, latency: Latency | None = None) -> Advice:
    """Return what to do next. `latency` predicts that of a layout, as the record's cost model has it.

    Raises ValueError for a path of `vary` that the spec cannot have, and for sizes of unknown teachers; ImpossibleSearch, before
    the first trial, for limits that nothing can meet: those of latency are known by then only.
    """
    if not record.trials and (impossible := [bound for bound in bounds(record, latency) if not bound.is_possible]):
        raise ImpossibleSearch(impossible)
    done: list[TrialRecord] = []
    while proposals := _next_step(record, latency, done):
        step = record.trials[len(done) : len(done) + len(proposals)]
        if len(step) < len(proposals) or not all(trial.state.terminal for trial in step):
            advice = _begin(record, proposals, step, len(done))
            if advice is not None:
                return advice
            done += step
            break
        done += step
    return _conclude(record, latency, done)


def _next_step(record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> list[Proposal]:
    """Return the trials that follow those that have ended."""
    if record.post.constraints:
        return SizeSearch(record, latency, done).next()
    return _sweep(record, done)


def _sweep(record: SearchRecord, done: Sequence[TrialRecord]) -> list[Proposal]:
    post, qualities = record.post, Qualities.of(record)
    number = len(done)
    total = min(post.budget.trials, len(grid(post)) if post.strategy == "grid" else post.budget.trials)
    if _is_spent(record, done):
        return []
    known = {trial.number: margin for trial in done if (margin := qualities.margin(trial)) is not None}
    spec = post.spec.model_dump(mode="json")
    chosen = [ask(record, done, known, number + index) for index in range(min(max(1, post.budget.at_once), total - number))]
    return [Proposal(0, values, with_settings(spec, values)) for values in chosen]


def _begin(
    record: SearchRecord, proposals: Sequence[Proposal], step: Sequence[TrialRecord], first: int
) -> Advice | None:
    """Return the trials of a step that are missing, as many as may run; None if no hours are left for them and none runs."""
    active = sum(not trial.state.terminal for trial in step)
    missing = [] if _is_spent(record, record.trials) else list(enumerate(proposals))[len(step) :]
    if not missing and not active:
        return None
    room = max(0, record.post.budget.at_once - active)
    begin = [
        BeginTrial(number=first + index, rung=proposal.rung, settings=proposal.settings, spec=proposal.spec)
        for index, proposal in missing[:room]
    ]
    running = f"{active + len(begin)} trial{'s' if active + len(begin) > 1 else ''} of rung {proposals[0].rung}"
    return Advice(begin=begin, message=f"{first} of at most {record.post.budget.trials} trials have ended; next: {running}")


def _conclude(record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> Advice:
    """Return the finalists to measure, or the result once they are."""
    if record.post.constraints:
        numbers = finalists(record, latency, done)
        measured = set(record.measured) | {trial.number for trial in done if trial.measurements}
        if missing := [number for number in numbers if number not in measured]:
            return Advice(measure=missing, message=f"all trials have ended; {len(missing)} finalists are to be measured")
    found = result(record, latency, done)
    return Advice(finished=found, message=found.reason)


def _is_spent(record: SearchRecord, trials: Sequence[TrialRecord]) -> bool:
    """Return whether trials have used the budget of hours."""
    limit = record.post.budget.device_hours
    return limit is not None and sum(trial.device_hours for trial in trials) >= limit
