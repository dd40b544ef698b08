"""Costs of students by their layouts: those that are limited, and the one to minimise."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tinyclip.artifacts.searches import SearchRecord, TrialRecord, latency_key
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.searches import Constraint, CostName
from tinyclip.schemas.searches import Limit as LimitValue

from tinyclip_workers.model.summary import summarize

FP32_BYTES = 4.0


@dataclass(frozen=True)
class Cost:
    """One kind of cost; a latency is of one tower in one engine."""

    name: CostName
    engine: str = "torch"
    batch: int = 1
    tower: str = "image"
    threads: int = 1

    @property
    def key(self) -> str:
        """The key of a latency in a cost model."""
        return f"{self.engine}:{self.tower}:{self.batch}:{self.threads}"

    def __str__(self) -> str:
        if self.name != "latency_ms":
            return {"bytes": "file size", "params": "number of parameters", "macs": "number of MACs"}[self.name]
        return f"latency of the {self.tower} tower ({self.engine}, batch {self.batch})"

    def number(self, value: float) -> str:
        """Format a value, with a unit if it has one."""
        if self.name == "latency_ms":
            return f"{value:.3g} ms"
        factor, prefix = next((found for found in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= found[0]), (1.0, ""))
        unit = f" {prefix}B" if self.name == "bytes" else prefix
        return f"{value / factor:.3g}{unit}"

    def describe(self, value: float) -> str:
        """Return a phrase with the value, as `file size 4 MB` or `890k parameters`."""
        return f"{self} {self.number(value)}" if self.name in ("latency_ms", "bytes") else self.count(value)

    def count(self, value: float) -> str:
        """Return the value with the name of what is counted, if it is a number of something."""
        noun = {"params": " parameters", "macs": " MACs"}.get(self.name, "")
        return f"{self.number(value)}{noun}"


Latency = Callable[[Layout, Cost], float]
"""Predicts the milliseconds of one call of a tower."""


@dataclass(frozen=True)
class Limit:
    """The most that a cost may be."""

    cost: Cost
    max: float
    pointer: str


@dataclass(frozen=True)
class Costs:
    """The costs of a search."""

    limits: tuple[Limit, ...]
    minimized: Cost
    latency: Latency | None
    bytes_per_param: float = FP32_BYTES

    @classmethod
    def of(cls, record: SearchRecord, latency: Latency | None, done: Sequence[TrialRecord] = ()) -> "Costs":
        """Return the costs of a search; `done` are trials from which the bytes of a parameter are known."""
        limits = tuple(
            Limit(cost_of(constraint), limit.max, f"/constraints/{index}")
            for index, constraint in enumerate(record.post.constraints)
            if (limit := _limit(constraint)) is not None
        )
        first = limits[0].cost if limits else Cost("bytes")
        wanted = record.post.minimize
        named = [limit.cost for limit in limits if limit.cost.name == wanted]
        minimized = first if wanted is None else named[0] if named else Cost(wanted)
        known = [trial.bytes / trial.params for trial in done if trial.bytes and trial.params]
        return cls(limits, minimized, latency, statistics.median(known) if known else FP32_BYTES)

    def predict(self, layout: Layout, cost: Cost) -> float:
        """Return the cost of a layout."""
        if cost.name == "latency_ms":
            if self.latency is None:
                raise ValueError("a latency needs the cost model of the hardware that serves")
            return self.latency(layout, cost)
        params, macs = _counted(layout.model_dump_json())
        return float(macs) if cost.name == "macs" else params * (self.bytes_per_param if cost.name == "bytes" else 1.0)

    def of_trial(self, trial: TrialRecord, cost: Cost, *, measured: bool = False) -> float | None:
        """Return the cost of a finished trial's student; `measured`: as finalists were measured, where they were."""
        if measured and (found := _measured(trial, cost)) is not None:
            return found
        counted = {"params": trial.params, "macs": trial.macs, "bytes": trial.bytes}.get(cost.name)
        if counted is not None:
            return float(counted)
        return self.predict(trial.layout, cost) if trial.layout is not None else None

    def utilization(self, layout: Layout) -> float:
        """Return the largest share of a limit that a layout costs; 0 without limits."""
        return max((self.predict(layout, limit.cost) / limit.max for limit in self.limits), default=0.0)

    def excess(self, trial: TrialRecord, *, measured: bool = False) -> float:
        """Return the largest share by which a trial exceeds a limit; 0 if it meets all."""
        costs = [(self.of_trial(trial, limit.cost, measured=measured), limit.max) for limit in self.limits]
        return max([0.0, *(value / most - 1 for value, most in costs if value is not None)])

    @property
    def towers(self) -> frozenset[str]:
        """The towers whose size matters to a limit or to what is minimised."""
        named = [limit.cost for limit in self.limits] + [self.minimized]
        return frozenset(t for cost in named for t in ((cost.tower,) if cost.name == "latency_ms" else ("image", "text")))

    @property
    def distinct(self) -> list[Cost]:
        """The limited costs and the minimised one, each once."""
        return list(dict.fromkeys([limit.cost for limit in self.limits] + [self.minimized]))


def cost_of(constraint: Constraint) -> Cost:
    """Return the kind of cost that a constraint limits."""
    for name in ("bytes", "params", "macs"):
        if getattr(constraint, name) is not None:
            return Cost(name)
    return Cost("latency_ms", constraint.engine, constraint.batch, constraint.tower, constraint.threads)


def _limit(constraint: Constraint) -> LimitValue | None:
    return constraint.latency_ms or constraint.bytes or constraint.params or constraint.macs


def _measured(trial: TrialRecord, cost: Cost) -> float | None:
    for measurement in trial.measurements:
        if measurement.engine == (cost.engine if cost.name == "latency_ms" else "torch"):
            if cost.name == "latency_ms":
                return measurement.latency_ms.get(latency_key(cost.tower, cost.batch, cost.threads))
            if cost.name == "bytes" and measurement.bytes is not None:
                return float(measurement.bytes)
    return None


@lru_cache(maxsize=4096)
def _counted(layout: str) -> tuple[int, int]:
    """Count parameters and multiply-accumulates. Cached: a search asks for the same layouts again and again."""
    summary = summarize(Layout.model_validate_json(layout))
    return summary.image_params + summary.text_params, summary.macs
