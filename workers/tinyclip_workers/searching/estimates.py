"""What is known of a search before it starts: limits that no student can meet, and the length of the search."""

import math

from tinyclip.artifacts.searches import Bound, SearchEstimate, SearchRecord
from tinyclip.schemas.spec import JobSpec

from tinyclip_workers.searching.costs import Cost, Costs, Latency
from tinyclip_workers.searching.finished import teacher_of
from tinyclip_workers.searching.rungs import Rungs
from tinyclip_workers.searching.sizes import SMALLEST, Shape, Size
from tinyclip_workers.searching.sweeps import grid

START_HOURS = 30 / 3600
"""Of a trial, besides its training: starting workers, reading data, evaluating and registering the student."""


def bounds(record: SearchRecord, latency: Latency | None = None) -> list[Bound]:
    """Return each limit beside the cost of the smallest student of the teacher's family.

    Latencies are left out as long as there is no cost model. One that is exceeded by less than the model's error is possible.
    """
    costs = Costs.of(record, latency)
    if not costs.limits:
        return []
    teacher = teacher_of(record)
    one_block = Shape(image_depth=1e-9, text_depth=1e-9)
    smallest = Size.of(one_block, SMALLEST, teacher, frozenset(("image", "text"))).layout(teacher)
    found = []
    for limit in costs.limits:
        if limit.cost.name == "latency_ms" and latency is None:
            continue
        least = costs.predict(smallest, limit.cost)
        message = "" if least * (1 - _error(record, limit.cost)) <= limit.max else (
            f"no student of this teacher's family has a {limit.cost} of {limit.cost.number(limit.max)} or less: "
            f"the smallest has {limit.cost.number(least)}; raise the limit to {_rounded_up(least)} or more"
        )  # fmt: skip
        pointer = f"{limit.pointer}/{limit.cost.name}/max"
        found.append(Bound(pointer=pointer, limit=limit.max, smallest=least, is_possible=not message, message=message))
    return found


def duration(record: SearchRecord) -> SearchEstimate:
    """Return the trials of a search and their steps, if it uses its budget of trials; `device_hours` limits it further."""
    post = record.post
    budget, steps = post.budget.trials, _steps(record)
    shares: tuple[float, ...] = (1.0,)
    if not post.constraints:
        rungs = [min(budget, len(grid(post))) if post.strategy == "grid" else budget]
    else:
        plan = Rungs.of(budget)
        rungs, shares = [*plan.trials[:-1], budget - sum(plan.trials[:-1])], plan.shares
    whole = sum(share * count for share, count in zip(shares, rungs, strict=True))
    hours = record.device_hours * whole if record.device_hours is not None else None
    if hours is not None and post.budget.device_hours is not None:
        hours = min(hours, post.budget.device_hours)
    rounds = [math.ceil(count / post.budget.at_once) for count in rungs]
    if post.constraints:
        rounds[-1] = rungs[-1]  # what refines the result waits for the trial before
    length = sum(share * count for share, count in zip(shares, rounds, strict=True))
    return SearchEstimate(
        trials=sum(rungs), trials_by_rung=rungs, steps=math.ceil(steps * whole) if steps is not None else None,
        device_hours=hours,
        hours=hours * length / whole / _devices(post.spec) + sum(rounds) * START_HOURS if hours is not None else None,
    )  # fmt: skip


def _devices(spec: JobSpec) -> int:
    """Return the devices of one trial, the most of a range."""
    workers = spec.resources.workers
    return workers if isinstance(workers, int) else workers.max


def _error(record: SearchRecord, cost: Cost) -> float:
    """Return the relative error that few predictions of a cost exceed; 0 of what is counted."""
    fitted = record.costs.engines.get(cost.key) if record.costs is not None and cost.name == "latency_ms" else None
    return fitted.p90_error if fitted is not None else 0.0


def _rounded_up(value: float) -> str:
    """Return the next number with three digits, as a limit can be written."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.15g}"


def _steps(record: SearchRecord) -> int | None:
    """Return the steps of one whole training: of the last stage if sizes are searched, else of all."""
    spec = record.post.spec
    stages = spec.stages[-1:] if record.post.constraints else spec.stages
    total = 0
    for stage in stages:
        batch = stage.batch_size or spec.batch_size
        if stage.train.steps is not None:
            total += stage.train.steps
        elif stage.train.samples is not None:
            total += max(1, math.ceil(stage.train.samples / batch))
        else:
            return record.steps
    return total
