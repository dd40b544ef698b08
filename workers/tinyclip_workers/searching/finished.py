"""What is known of a search for sizes from trials that have ended: costs, margins, sizes of a cost, and what may be spent."""

import statistics
from collections.abc import Callable, Sequence
from functools import cached_property

from tinyclip.artifacts.searches import SearchRecord, TrialRecord
from tinyclip.schemas.jobs import JobState
from tinyclip.schemas.layouts import Layout

from tinyclip_workers.searching.costs import Costs, Latency
from tinyclip_workers.searching.quality import Qualities
from tinyclip_workers.searching.rungs import Rungs
from tinyclip_workers.searching.sizes import SMALLEST, Shape, Size, largest_scale

LIMIT_TOLERANCE = 0.01
"""How far below a limit sizes aim at least."""
LARGEST_ERROR = 0.12
"""How far below a limit sizes aim at most: nine of ten predictions are to hold when the student is measured."""


class Finished:
    """The trials of a search that have ended, and what follows from them."""

    def __init__(self, record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> None:
        self.teacher = teacher_of(record)
        self.record, self.done, self.budget = record, list(done), record.post.budget
        self.costs = Costs.of(record, latency, done)
        self.qualities = Qualities.of(record)
        self.rungs = Rungs.of(self.budget.trials)
        self.gains = self.qualities.gains(self.done, len(self.rungs.shares))

    @cached_property
    def succeeded(self) -> list[TrialRecord]:
        """The trials with a student."""
        return [t for t in self.done if t.state == JobState.SUCCEEDED and t.model is not None and t.layout is not None]

    def parent(self, size: Size) -> TrialRecord | None:
        """Return the student to cut a size out of: of those that were trained longest the nearest in size."""
        larger = [trial for trial in self.succeeded if size.fits_into(Size.from_json(trial.settings["size"]))]
        return max(larger, key=lambda trial: (trial.rung, -self.cost(trial), -trial.number), default=None)

    def margin(self, trial: TrialRecord) -> float:
        return self.qualities.margin(trial) or 0.0

    def expected(self, trial: TrialRecord) -> float | None:
        """Return the margin that is expected after a whole training."""
        return self.qualities.margin(trial, self.gains[trial.rung])

    def cost(self, trial: TrialRecord) -> float:
        assert trial.layout is not None  # it has succeeded
        return max(1e-12, self.axis(trial.layout))

    def axis(self, layout: Layout) -> float:
        """Return the size in the unit of the search: the cost to minimise, or the share of the limits that is used."""
        if self.qualities.is_constrained:
            return self.costs.predict(layout, self.costs.minimized)
        return self.costs.utilization(layout)

    def scale_of(self, shape: Shape, value: float) -> float:
        """Return the scale at which students of a shape have a cost."""
        return self._largest(shape, self.axis, value)

    def limit_scale(self, shape: Shape) -> float:
        return self._largest(shape, self.costs.utilization, self.aim)

    def share_of_weights(self, shape: Shape, scale: float) -> float:
        """Return the share of the teacher's weights that students of a size keep, in the towers whose costs matter."""
        size = Size.of(shape, scale, self.teacher, self.costs.towers)
        return statistics.fmean([getattr(size, tower) for tower in sorted(self.costs.towers)] or [1.0])

    def _largest(self, shape: Shape, cost: Callable[[Layout], float], value: float) -> float:
        found = largest_scale(lambda scale: cost(self.layout(shape, scale)), value)
        return SMALLEST if found is None else found

    def layout(self, shape: Shape, scale: float) -> Layout:
        return Size.of(shape, scale, self.teacher, self.costs.towers).layout(self.teacher)

    @cached_property
    def aim(self) -> float:
        """The share of the limits to aim at: real students differ from the estimates, and predictions have errors."""
        errors = [LIMIT_TOLERANCE]
        if self.record.costs is not None:
            fitted = [self.record.costs.engines.get(limit.cost.key) for limit in self.costs.limits]
            errors += [min(LARGEST_ERROR, cost.p90_error) for cost in fitted if cost is not None]
        ratios = []
        for trial in self.succeeded:
            expected = self.costs.utilization(Size.from_json(trial.settings["size"]).layout(self.teacher))
            if expected > 0 and trial.layout is not None:
                ratios.append(self.costs.utilization(trial.layout) / expected)
        drift = min(1.2, max(1.0, statistics.median(ratios))) if ratios else 1.0
        return 1 / (1 + max(errors)) / drift

    def affords(self, rung: int, *, reserve: bool = False) -> bool:
        """Return whether the hours suffice for a trial of a rung, and with `reserve` for one of the last rung after it."""
        limit, used = self.budget.device_hours, sum(trial.device_hours for trial in self.done)
        if limit is None:
            return True
        shares = sum(self.rungs.shares[trial.rung] for trial in self.done)
        whole = used / shares if shares else self.record.device_hours or 0.0
        return used < limit and used + whole * (self.rungs.shares[rung] + reserve) <= limit


def teacher_of(record: SearchRecord) -> Layout:
    """Return the teacher's layout. Raises ValueError if it is unknown."""
    if record.teacher is None:
        raise ValueError("sizes are searched for students of a teacher with a ViT or a ResNet, whose layout is known")
    return record.teacher
