"""Reports of a worker group that waits for resources: `worker_group.waiting` events until Ray has placed the group.

Ray Train retries the placement for ever and reports nothing, so the driver looks at the cluster while the trainer runs. With each
report of a wait it removes the groups that Ray has forgotten.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.util import placement_group_table

from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.groups.leaked_groups import own_job, remove_leaked_groups

log = logging.getLogger(__name__)

CHECK_S = 1.0
REPORT_AFTER_S = 3.0
"""A wait that is shorter is part of every start, and is not reported."""
REPEAT_S = 60.0
"""Interval of further reports, which also show that the attempt is alive."""
STOP_S = 10.0
PLURALS = {"CPU": "CPUs", "GPU": "GPUs"}


@contextmanager
def report_waits(open_events: Callable[[], EventWriter], stage: int, workers: int, each: Mapping[str, float]) -> Iterator[None]:
    """Report, while the block runs, that `workers` workers with these resources `each` cannot be placed."""
    watch = _Watch(open_events, stage, workers, each)
    thread = threading.Thread(target=watch.run, name="placement", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.ended.set()
        thread.join(STOP_S)  # it is a daemon: a Ray that does not answer must not keep the driver


class _Watch:
    def __init__(self, open_events: Callable[[], EventWriter], stage: int, workers: int, each: Mapping[str, float]) -> None:
        # A writer of its own: writers are not for several threads, and numbers of segments are never taken twice.
        self._open_events = open_events
        self._events: EventWriter | None = None
        self._stage, self._workers, self._each = stage, workers, each
        self._needed = {kind: workers * amount for kind, amount in each.items()}
        self.ended = threading.Event()

    def run(self) -> None:
        """Check until the trainer has ended."""
        since = reported = None
        while not self.ended.wait(CHECK_S):
            try:
                free = self._free_if_waiting()
            except Exception as error:  # Ray is unreachable, which the trainer notices
                log.debug("the cluster's resources cannot be read: %s", error)
                continue
            now = time.monotonic()
            since = None if free is None else since or now
            if free is not None and since is not None and now - since >= REPORT_AFTER_S:
                if reported is None or now - reported >= REPEAT_S:
                    reported = now
                    self._report(free)
                    self._remove_leaked_groups()
            elif free is None and reported is not None:
                reported = None
                self._send("worker_group.placed", f"{_amounts(self._needed)} are reserved", {"needed": self._needed})

    def _free_if_waiting(self) -> dict[str, float] | None:
        """Return the cluster's free resources while the group waits for more of them; None if it does not wait."""
        groups = states_of_own_groups()
        if "CREATED" in groups:
            return None
        available: dict[str, float] = ray.available_resources()
        free = {kind: available.get(kind, 0.0) for kind in self._needed}
        enough = all(free[kind] >= amount for kind, amount in self._needed.items())
        # Enough, and no group is pending: Ray Train is about to request one, or has just removed it.
        return None if enough and "PENDING" not in groups else free

    def _remove_leaked_groups(self) -> None:
        try:
            remove_leaked_groups()
        except Exception as error:  # the dashboard does not answer; the next report tries again
            log.debug("cannot look for leaked placement groups: %s", error)

    def _report(self, free: dict[str, float]) -> None:
        size: dict[str, float] = ray.cluster_resources()
        total = {kind: size.get(kind, 0.0) for kind in self._needed}
        lacking = {kind: amount for kind, amount in self._needed.items() if free[kind] < amount}
        if lacking:
            message = f"waiting for {_amounts(lacking)}, {_numbers(free, lacking)} free"
            if any(total[kind] < amount for kind, amount in lacking.items()):
                message += f"; the cluster has {_numbers(total, lacking)}, so nodes have to join it"
        else:
            message = f"waiting for a node with {_amounts(self._each)} free; {_amounts(free)} are free on several nodes"
        self._send("worker_group.waiting", message, {"needed": self._needed, "free": free, "total": total})

    def _send(self, type: str, message: str, data: dict[str, Mapping[str, float]]) -> None:
        self._events = self._events or self._open_events()
        self._events.send(type, stage=self._stage, message=message, data=data)


def states_of_own_groups() -> set[str]:
    """Return the states of this Ray job's placement groups, whose ids end with the job's."""
    job = own_job()
    return {str(group["state"]) for id, group in placement_group_table().items() if id.endswith(job)}


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind if amount == 1 else PLURALS.get(kind, kind)}" for kind, amount in resources.items())


def _numbers(of: Mapping[str, float], kinds: Mapping[str, float]) -> str:
    return " and ".join(f"{of[kind]:g}" for kind in kinds)
