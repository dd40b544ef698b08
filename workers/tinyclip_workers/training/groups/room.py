"""Room for the workers of an elastic group, reserved by Ray's placement groups: its scheduler decides what fits where.

Ray's own elastic groups are not used. They count all resources of the cluster, also those in use, and so wait for ever beside
another job; and they resize by killing the workers, so that steps since the last checkpoint are repeated (Ray 2.60).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from tinyclip_workers.training.groups.placement import states_of_own_groups
from tinyclip_workers.training.groups.sizes import next_size

log = logging.getLogger(__name__)

PLACE_S = 3.0
"""Time in which a cluster places a group for which it has room."""
CHECK_S = 1.0
SETTLE_S = 30.0
"""Time for which a group trains before it grows: to start again takes about as long, and nodes often join one after another."""
STOP_S = 10.0


def largest_with_room(sizes: Sequence[int], each: Mapping[str, float]) -> int:
    """Return the largest of the sizes for whose workers, with resources `each`, there is room now, or the smallest one."""
    for size in sorted(sizes, reverse=True)[:-1]:
        if _exceeds_cluster(size, each):
            continue
        with _reserved(size, each) as group:
            if group.wait(PLACE_S):
                return size
    return min(sizes)


@contextmanager
def watch_for_room(
    sizes: Sequence[int], size: int, each: Mapping[str, float], found: Callable[[int], None]
) -> Iterator[None]:
    """While the block runs a group of `size` workers, wait for room for the next larger one, and call `found` with its size."""
    larger = next_size(sizes, size)
    if larger is None:
        yield
        return
    ended = threading.Event()
    arguments = (ended, larger - size, each, lambda: found(larger))
    thread = threading.Thread(target=_watch, args=arguments, name="room", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_S)  # it is a daemon: a Ray that does not answer must not keep the driver


def _watch(ended: threading.Event, more: int, each: Mapping[str, float], found: Callable[[], None]) -> None:
    try:
        # The group itself comes first: a reservation beside it could take the room that it was promised.
        while "CREATED" not in states_of_own_groups():
            if ended.wait(CHECK_S):
                return
        if ended.wait(SETTLE_S):
            return
        with _reserved(more, each) as group:
            while not group.wait(CHECK_S):
                if ended.is_set():
                    return
        found()
    except Exception as error:  # Ray or the store is unreachable, or the disk is full: the group trains on as it is
        log.warning("the group cannot grow any more: %s", error)


def _exceeds_cluster(size: int, each: Mapping[str, float]) -> bool:
    total: dict[str, float] = ray.cluster_resources()
    return any(total.get(kind, 0.0) < size * amount for kind, amount in each.items())


@contextmanager
def _reserved(workers: int, each: Mapping[str, float]) -> Iterator[PlacementGroup]:
    """Request the resources of some workers for the duration of the block; a cluster that can add nodes sees the demand."""
    group = placement_group([dict(each)] * workers)
    try:
        yield group
    finally:
        remove_placement_group(group)
