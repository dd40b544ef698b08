"""Ray tasks of a job: many, of which a bounded number is in flight, and each reports how far it is.

A task is a generator of numbers, which are its progress. Its result is what it has written to the artifacts store: Ray may run it
again when its node is lost.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

log = logging.getLogger(__name__)

RETRIES = 3
"""Times that Ray runs a task again whose process or node was lost."""
QUEUED = 2
"""Tasks in flight for each processor: the next one begins as soon as one ends."""
WAIT_REPORT_SECONDS = 60.0
NODE_SHARE = 0.9
"""Share of a node's memory that a task may ask for."""


class TaskLost(RuntimeError):
    """A task whose process or node was lost again and again."""

    def __init__(self, call: int, reason: object) -> None:
        super().__init__(f"a task was lost {RETRIES + 1} times: {reason}")
        self.call = call
        """Its number."""


@dataclass(frozen=True)
class TaskStep:
    """A sign of life of one call."""

    call: int
    done: float
    """The number that the task yielded last."""
    finished: bool = False


def run_tasks(
    task: Callable[..., Iterator[float]], calls: Sequence[tuple[Any, ...]], *, memory: float = 0.0, gpu: bool = False,
    tick_s: float = 5.0,
) -> Iterator[TaskStep | None]:  # fmt: skip
    """Run `task(*call)` for every call on the cluster; yield its steps as they come, and None when `tick_s` pass without one.

    Each takes a processor and `memory` bytes, and with `gpu` a GPU if the cluster has any. Calls begin in order. Those that run
    are cancelled when the caller stops. Raises what a task raises, and TaskLost.
    """
    if not calls:
        return
    if not ray.is_initialized():
        ray.init()
    resources = _resources(memory, gpu)
    remote = ray.remote(max_retries=RETRIES, **resources)(task).options(num_returns="streaming")  # type: ignore[call-overload]
    waiting, running = list(range(len(calls)))[::-1], dict[Any, int]()
    waits = _Waits(resources)
    try:
        while waiting or running:
            while waiting and len(running) < _in_flight(resources):
                call = waiting.pop()
                running[remote.remote(*calls[call])] = call
            ready, _ = ray.wait(list(running), num_returns=1, timeout=tick_s, fetch_local=False)
            if not ready:
                waits.report()
                yield None
            for steps in ready:
                waits.begun()
                yield _next_step(steps, running)
    finally:
        for steps in running:
            with contextlib.suppress(Exception):  # the cluster may be gone
                ray.cancel(steps, force=True)


def _next_step(steps: Any, running: dict[Any, int]) -> TaskStep:
    call = running[steps]
    try:
        return TaskStep(call, ray.get(next(steps)))
    except StopIteration:
        del running[steps]
        return TaskStep(call, 0.0, finished=True)
    except RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except RayError as error:
        raise TaskLost(call, error) from error


def _resources(memory: float, gpu: bool) -> dict[str, float]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # A task that asks for more memory than any node has would wait for ever.
    possible = min(memory, NODE_SHARE * max((node.get("memory", 0.0) for node in nodes), default=0.0))
    gpus = {"num_gpus": 1.0} if gpu and any(node.get("GPU") for node in nodes) else {}
    return {"num_cpus": 1.0, **({"memory": possible} if possible else {}), **gpus}


def _in_flight(resources: dict[str, float]) -> int:
    total: dict[str, float] = ray.cluster_resources()
    kind, each = ("GPU", resources["num_gpus"]) if resources.get("num_gpus") else ("CPU", resources.get("num_cpus", 1))
    return max(1, int(QUEUED * total.get(kind, 0) / each))


class _Waits:
    """Reports that no task has begun yet, about once a minute."""

    def __init__(self, resources: dict[str, float]) -> None:
        self._resources, self._has_begun, self._reported_at = resources, False, time.monotonic()

    def begun(self) -> None:
        self._has_begun = True

    def report(self) -> None:
        if not self._has_begun and time.monotonic() - self._reported_at >= WAIT_REPORT_SECONDS:
            self._reported_at = time.monotonic()
            needed = ", ".join(f"{count:g} {name.removeprefix('num_')}" for name, count in self._resources.items())
            log.info("waiting for a node with %s free", needed or "a processor")
