"""What a search asks of a student: the qualities that count, and the cost that is to be small."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tinyclip.cli.display.lines import HEADLINES
from tinyclip.cli.display.numbers import count, number, percent
from tinyclip.schemas import Constraint, Measurement, SearchPost, Trial
from tinyclip.schemas.searches import CostName

Quality = dict[str, dict[str, float]]
"""Values by task and metric."""


@dataclass(frozen=True)
class Goal:
    """A quality that counts: one metric of one task, and the value that is needed, if any."""

    task: str
    metric: str
    keep: float | None = None
    """Share of the teacher's value."""
    min: float | None = None

    @property
    def name(self) -> str:
        return f"{self.task} {HEADLINES.get(self.metric, self.metric)}"

    def value(self, quality: Quality) -> float | None:
        """Return the value of this goal; of a task with several languages the mean over them."""
        if self.task in quality:
            return quality[self.task].get(self.metric)
        parts = [found for task, found in quality.items() if task.startswith(f"{self.task}.")]
        values = [found[self.metric] for found in parts if self.metric in found]
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class Cost:
    """The cost on which students are compared; a latency is of one tower in one engine."""

    name: CostName
    engine: str = "torch"
    call: str = "image:1"
    """Tower and batch size of a latency."""
    limit: float | None = None

    def __str__(self) -> str:
        tower, _, batch = self.call.partition(":")
        latency = f"{tower} latency ({self.engine}, batch {batch})"
        return {"latency_ms": latency, "bytes": "file size", "params": "parameters", "macs": "MACs"}[self.name]

    def of(self, trial: Trial, measurements: Sequence[Measurement]) -> float | None:
        """Return a trial's cost; a latency only if it is among the measurements."""
        if self.name != "latency_ms":
            counted: float | None = getattr(trial, self.name)
            return counted
        return next((found.latency_ms.get(self.call) for found in measurements if found.engine == self.engine), None)

    def number(self, value: float) -> str:
        """Format a value with its unit: `3.8 ms`, `14.8MB`, `3.7M`."""
        if self.name == "latency_ms":
            return f"{value:.3g} ms"
        return f"{count(value)}B" if self.name == "bytes" else count(value)


def goals_of(post: SearchPost) -> list[Goal]:
    """Return the qualities that are constrained, or else the first evaluation task's."""
    headlines = {task.name: _headline(task.kind) for task in post.spec.evaluation.tasks}
    constrained = [
        Goal(each.task, each.metric or headlines.get(each.task, "top1"), each.keep, each.min)
        for each in post.constraints if each.task is not None
    ]
    return constrained or [Goal(task, metric) for task, metric in headlines.items()][:1]


def minimized(post: SearchPost) -> Cost:
    """Return the cost that the recommended student has least of."""
    limited = [cost for constraint in post.constraints if (cost := _limited(constraint)) is not None]
    if post.minimize is None:
        return limited[0] if limited else Cost("bytes")
    return next((cost for cost in limited if cost.name == post.minimize), Cost(post.minimize))


def counted(post: SearchPost) -> Cost:
    """Return a cost that is known without a measurement, a limited one if there is one."""
    limited = [cost for constraint in post.constraints if (cost := _limited(constraint)) is not None]
    return next((cost for cost in limited if cost.name != "latency_ms"), Cost("bytes"))


def score(value: float) -> str:
    """Format a quality: a share in percent, other numbers as they are."""
    return percent(value) if 0 <= value <= 1 else number(value)


def _limited(constraint: Constraint) -> Cost | None:
    names: tuple[CostName, ...] = ("latency_ms", "bytes", "params", "macs")
    for name in names:
        limit = getattr(constraint, name)
        if limit is not None:
            return Cost(name, constraint.engine, f"{constraint.tower}:{constraint.batch}", limit.max)
    return None


def _headline(kind: str) -> str:
    return "text_to_image_r10" if kind == "retrieval" else "top1"
