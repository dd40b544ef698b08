"""The search for sizes: which trials come next, from those that have ended.

The first rung looks for the size at which the quality is just kept, or which just meets the limits; then for a better shape of
that size. The best are trained longer. With the rest of the budget the result is refined. Each student is cut out of the best
finished larger one, or continues an earlier one.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from tinyclip.artifacts.searches import SearchRecord, TrialRecord
from tinyclip.schemas._base import JSON
from tinyclip.schemas.jobs import JobState

from tinyclip_workers.searching.costs import Latency
from tinyclip_workers.searching.curve import Point, between, bracket, slope
from tinyclip_workers.searching.finished import LIMIT_TOLERANCE, Finished
from tinyclip_workers.searching.sizes import SMALLEST, WHOLE, Shape, Size
from tinyclip_workers.searching.specs import continued, cut, with_settings
from tinyclip_workers.searching.sweeps import ask, varied

START = 0.5
"""The first size, as a share of the teacher's weights."""
WORTH_A_TRIAL = 0.01
"""A short training whose expected quality is lower than the best one by more is not continued at the end."""
DEPTHS = (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 6)
"""Shares of the blocks that a search with limits may begin with."""
ENOUGH_WEIGHTS = 0.5
"""The deepest of these shapes is taken that keeps as large a share of the most weights that any of them keeps."""
CLOSE, REFINED = 1.12, 1.04
"""Ratios of sizes within which the search ends: in the first rung, and of whole trainings."""


@dataclass(frozen=True)
class Proposal:
    """A trial that should be next."""

    rung: int
    settings: JSON
    spec: JSON


class SizeSearch:
    """The next trials of a search for sizes, as a function of trials that have all ended."""

    def __init__(self, record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord]) -> None:
        self.known = Finished(record, latency, done)
        self.record, self.done = record, list(done)
        self.post, self.budget = record.post, record.post.budget
        self.base: JSON = record.post.spec.model_dump(mode="json")

    def next(self) -> list[Proposal]:
        """Return the trials of the next step, which run together; none at the end of the search."""
        failed_first = len(self.done) >= 3 and not self.known.succeeded
        if len(self.done) >= self.budget.trials or failed_first:
            return []
        proposals: list[Proposal] = []
        if self.known.affords(0, reserve=self.known.rungs.last > 0):
            proposals = self._sizes() or self._shapes()
        proposals = proposals or self._promotions() or self._refinements()
        room = min(self.budget.trials - len(self.done), max(1, self.budget.at_once))
        return proposals[:room]

    # The first rung

    def _sizes(self) -> list[Proposal]:
        """Return trials that look for the size, of the first shape."""
        if len(self._of_rung(0)) >= self.known.rungs.sizes or self._count("shape"):
            return []
        room = min(self.budget.at_once, self.known.rungs.sizes - len(self._of_rung(0)))
        scales = self._next_scales(room) if self.known.qualities.is_constrained else self._scales_to_limit()
        return [self._new("size", 0, self._first_shape, scale) for scale in scales[:room]]

    def _next_scales(self, count: int) -> list[float]:
        points = self._scale_points
        if not points:
            return [START * 0.5**index for index in range(count)]
        low, high = bracket(points)
        if low is None:
            assert high is not None
            smallest = min(scale for scale, _ in points)
            return [max(SMALLEST, smallest * 0.5 ** (index + 1)) for index in range(count)] if smallest > SMALLEST else []
        if high is None:
            largest = max(scale for scale, _ in points)
            return [min(1.0, largest * 1.6 ** (index + 1)) for index in range(count)] if largest < WHOLE else []
        if high[0] / low[0] < CLOSE:
            return []
        if count == 1:
            return [between(low, high)]
        return [low[0] * (high[0] / low[0]) ** ((index + 1) / (count + 1)) for index in range(count)][::-1]

    def _scales_to_limit(self) -> list[float]:
        """Return the scale of the limits; before it one half as deep a cut, if the cut is deep."""
        limit = self.known.limit_scale(self._first_shape)
        known = self._count("size")
        steps = [math.sqrt(limit), limit] if limit < 0.4 and self.known.rungs.sizes > 1 else [limit]
        return steps[known : known + 1]

    def _shapes(self) -> list[Proposal]:
        """Return trials of other shapes, with the cost of the size that was found."""
        if len(self._of_rung(0)) >= self.known.rungs.trials[0] or not self._scale_points:
            return []
        tried = {self._shape(trial) for trial in self._of_rung(0)}
        shapes = [shape for shape in self._best_shape.neighbours(self.known.costs.towers) if shape not in tried]
        room = min(self.budget.at_once, self.known.rungs.trials[0] - len(self._of_rung(0)))
        if not shapes and self.post.vary:
            shapes = [self._best_shape] * room
        return [
            self._new("shape", 0, shape, self.known.scale_of(shape, self._boundary), number=len(self.done) + index)
            for index, shape in enumerate(shapes[:room])
        ]

    @cached_property
    def _first_shape(self) -> Shape:
        """The shape of the first sizes: the teacher's own, or one with fewer blocks if limits leave hardly any weights of that.

        A block costs latency however few units it has, so that a low limit is met by fewer blocks, not by thinner ones.
        """
        if self.known.qualities.is_constrained or not self.known.costs.limits:
            return Shape()
        towers = self.known.costs.towers
        shapes = [
            Shape(image_depth=depth if "image" in towers else 1.0, text_depth=depth if "text" in towers else 1.0)
            for depth in DEPTHS
        ]
        weights = [self.known.share_of_weights(shape, self.known.limit_scale(shape)) for shape in shapes]
        return next(shape for shape, kept in zip(shapes, weights, strict=True) if kept >= ENOUGH_WEIGHTS * max(weights))

    @cached_property
    def _scale_points(self) -> list[Point]:
        """Scales of the teacher's shape, with the margins that are expected after a whole training."""
        trials = [trial for trial in self._of_rung(0) if trial.settings.get("phase") == "size"]
        return [(float(trial.settings["scale"]), self.known.expected(trial) or 0.0) for trial in trials]

    @cached_property
    def _boundary(self) -> float:
        """The cost at which the quality is just kept; without a quality to keep, the share of the limits that is aimed at."""
        if not self.known.qualities.is_constrained:
            return self.known.aim
        low, high = bracket(self._scale_points)
        if low is not None and high is not None:
            scale = between(low, high, margin=0.0)
        else:
            scale = high[0] if high is not None else max(scale for scale, _ in self._scale_points)
        return self.known.axis(self.known.layout(self._first_shape, scale))

    @cached_property
    def _best_shape(self) -> Shape:
        """The shape with the best quality at the boundary."""
        low, high = bracket(self._scale_points)
        is_bracketed = self.known.qualities.is_constrained and low is not None and high is not None
        _, smallest = min(self._scale_points, default=(1.0, 0.0))
        margins = {self._first_shape: 1.0 if is_bracketed else smallest}
        for trial in self._of_rung(0):
            if trial.settings.get("phase") == "shape":
                shape = self._shape(trial)
                margins[shape] = max(self.known.expected(trial) or 0.0, margins.get(shape, 0.0))
        return max(margins, key=lambda shape: margins[shape])

    # Longer rungs

    def _promotions(self) -> list[Proposal]:
        """Return the trials of the next rung that is not complete: the best of the rung before, trained further."""
        for rung in range(1, len(self.known.rungs.shares)):
            missing = self.known.rungs.trials[rung] - len(self._of_rung(rung))
            if missing <= 0 or self._count("refine") or not self.known.affords(rung, reserve=rung < self.known.rungs.last):
                continue
            best = [trial for below in range(rung - 1, -1, -1) for trial in self._promotable(below)]
            if best:
                return [self._longer(trial, rung) for trial in best[:missing]]
        return []

    def _promotable(self, rung: int) -> list[TrialRecord]:
        """Return the trials of a rung that nothing continues, the most promising first."""
        continued_ones = {trial.settings.get("continues") for trial in self.done}
        trials = [trial for trial in self.known.succeeded if trial.rung == rung and trial.number not in continued_ones]
        return sorted(trials, key=self._rank)

    def _rank(self, trial: TrialRecord) -> tuple[float, ...]:
        margin = self.known.expected(trial) or 0.0
        exceeds = self.known.costs.excess(trial) > LIMIT_TOLERANCE
        if not self.known.qualities.is_constrained:
            return (float(exceeds), self.known.costs.excess(trial) if exceeds else -margin, trial.number)
        # The cost at which a student of this shape should just keep the quality, less certain the further away it is.
        distance = max(-1.0, min(1.0, (1 - margin) / self._slope))
        out_of_reach = exceeds and self._boundary_meets_limits
        return (float(out_of_reach), math.log(self.known.cost(trial)) + distance + 0.2 * abs(distance), trial.number)

    # Refinement

    def _refinements(self) -> list[Proposal]:
        """Return a trial of whole length that improves on those of the last rung."""
        last = self.known.rungs.last
        finals = [trial for trial in self.known.succeeded if trial.rung == last]
        refined = [trial for trial in self.done if trial.settings.get("phase") == "refine"]
        gave_up = len(refined) >= 2 and all(trial.state != JobState.SUCCEEDED for trial in refined[-2:])
        if not self.known.affords(last) or gave_up:
            return []
        promising = [trial for below in range(last - 1, -1, -1) for trial in self._promotable(below)]
        if not finals:
            return [self._longer(trial, last) for trial in promising[:1]]
        if not self.known.qualities.is_constrained:
            return self._better_shapes(finals, promising)
        target = self._target(finals)
        if target is None:
            return []
        cost, like = target
        scale = self.known.scale_of(self._shape(like), cost)
        nudge = 1.02 ** sum(trial.state != JobState.SUCCEEDED for trial in refined)
        proposal = self._new("refine", last, self._shape(like), min(1.0, scale * nudge), like=like)
        known = {str(trial.settings["size"]) for trial in finals}
        return [] if str(proposal.settings["size"]) in known else [proposal]

    def _better_shapes(self, finals: Sequence[TrialRecord], promising: Sequence[TrialRecord]) -> list[Proposal]:
        """Return a trial that may have a better quality within the limits than those of the last rung."""
        last = self.known.rungs.last
        within = [trial for trial in finals if self.known.costs.excess(trial) == 0]
        best = max(within or finals, key=self.known.margin)
        hopeful = [trial for trial in promising if self.known.costs.excess(trial) <= LIMIT_TOLERANCE or not within]
        if hopeful and (self.known.expected(hopeful[0]) or 0.0) > self.known.margin(best) - WORTH_A_TRIAL:
            return [self._longer(hopeful[0], last)]
        tried = {self._shape(trial) for trial in self.done}
        shapes = [shape for shape in self._shape(best).neighbours(self.known.costs.towers) if shape not in tried]
        return [self._new("refine", last, shape, self.known.limit_scale(shape), like=best) for shape in shapes[:1]]

    def _target(self, finals: Sequence[TrialRecord]) -> tuple[float, TrialRecord] | None:
        """Return the cost to try next, and the student whose shape and settings to take."""
        margins = {trial.number: self.known.margin(trial) for trial in finals}
        within = [trial for trial in finals if self.known.costs.excess(trial) == 0]
        best = max(finals, key=lambda trial: margins[trial.number])
        if self.known.costs.limits and not within and not any(trial.settings.get("to_limit") for trial in self.done):
            shape = self._shape(best)
            return self.known.axis(self.known.layout(shape, self.known.limit_scale(shape))), best
        kept = [trial for trial in finals if margins[trial.number] >= 1]
        if not kept:
            if float(best.settings["scale"]) >= WHOLE:
                return None  # it is as large as its shape can be
            rise = min(0.7, max(0.1, 1.3 * (1 - margins[best.number]) / self._slope))
            return self.known.cost(best) * math.exp(rise), best
        smallest = min(kept, key=self.known.cost)
        failing = [trial for trial in finals if margins[trial.number] < 1 and self.known.cost(trial) < self.known.cost(smallest)]
        high = (self.known.cost(smallest), margins[smallest.number])
        if not failing:
            fall = min(0.35, max(0.05, 0.9 * (high[1] - 1) / self._slope))
            return high[0] * math.exp(-fall), smallest
        nearest = max(failing, key=self.known.cost)
        low = (self.known.cost(nearest), margins[nearest.number])
        return (between(low, high), smallest) if high[0] / low[0] > REFINED else None

    # Proposals

    def _new(
        self, phase: str, rung: int, shape: Shape, scale: float, *, like: TrialRecord | None = None, number: int | None = None
    ) -> Proposal:
        """Return a trial of a new size, cut out of the best finished larger student.

        It has the settings of `like`, or new ones if its `number` is given.
        """
        size = Size.of(shape, scale, self.known.teacher, self.known.costs.towers)
        values = varied(self.post, like.settings) if like is not None else {}
        if number is not None and self.post.vary:
            values = ask(self.record, self.done, self._observations, number)
        parent = self.known.parent(size)
        settings = {
            "phase": phase, "size": size.to_json(), "shape": asdict(shape), "scale": round(scale, 6),
            "from": parent.number if parent is not None else None, **values,
        }  # fmt: skip
        if phase == "refine" and self.known.costs.limits and self.known.costs.utilization(size.layout(self.known.teacher)) <= 1:
            settings["to_limit"] = True
        spec = cut(with_settings(self.base, values), size, self.record, self.known.costs, parent, self.known.rungs.shares[rung])
        return Proposal(rung, settings, spec)

    def _longer(self, trial: TrialRecord, rung: int) -> Proposal:
        """Return a trial that trains the student of another one further."""
        settings = {**trial.settings, "phase": "rung", "from": trial.number, "continues": trial.number}
        spec = with_settings(self.base, varied(self.post, trial.settings))
        return Proposal(rung, settings, continued(spec, trial, self.known.rungs.shares[rung]))

    # What is known of trials

    @cached_property
    def _slope(self) -> float:
        """The margin for each factor e of the cost, of the teacher's own shape."""
        trials = [trial for trial in self.known.succeeded if trial.settings.get("phase") == "size"]
        return slope([(self.known.cost(trial), self.known.expected(trial) or 0.0) for trial in trials])

    @property
    def _observations(self) -> dict[int, float]:
        """The qualities that settings of the first rung have led to."""
        return {trial.number: self.known.expected(trial) or 0.0 for trial in self.known.succeeded if trial.rung == 0}

    @cached_property
    def _boundary_meets_limits(self) -> bool:
        scale = self.known.scale_of(self._first_shape, self._boundary)
        return self.known.costs.utilization(self.known.layout(self._first_shape, scale)) <= 1

    def _of_rung(self, rung: int) -> list[TrialRecord]:
        return [trial for trial in self.done if trial.rung == rung and trial.settings.get("phase") != "refine"]

    def _count(self, phase: str) -> int:
        return sum(trial.settings.get("phase") == phase for trial in self.done)

    def _shape(self, trial: TrialRecord) -> Shape:
        return Shape(**trial.settings["shape"])
