"""Faults that separate a node, with the driver and the worker of an attempt, from the cluster: they go on as orphans."""

import time
from math import ceil

from bench.chaos.case import CaseContext
from bench.chaos.jobs import RunningJob
from bench.chaos.kills import LATE_SECONDS
from bench.chaos.machine import kill, running, wait_until
from bench.chaos.nodes import Node
from bench.chaos.outcome import Fault
from bench.chaos.profiles import Profile

ORPHAN_SECONDS = 150.0
"""Time limit for the end of an orphan that can read that a newer attempt has superseded it. Its worker stops at the next step,
its driver once Ray Train's controller has given up the head that is gone, and the rest with its node."""
LONG_ABSENCE_SECONDS = 600.0
FREE = 5
"""Each `FREE`-th loss of the head finds the orphans running all the time; the other orphans are suspended until their successors
train, so that both write at the same time."""


def lose_head(context: CaseContext) -> str:
    """Kill the Ray head, cut the node with the attempts off, and start a new head with another node."""
    return _lose(context, with_head=True)


def lose_node(context: CaseContext) -> str:
    """Suspend the node with the attempts and cut it off. It returns after another node has continued the jobs."""
    return _lose(context, with_head=False)


def lose_node_for_long(context: CaseContext) -> str:
    """Do the same for ten minutes: the node returns long after the end of its jobs."""
    return _lose(context, with_head=False, absence=LONG_ABSENCE_SECONDS)


def _lose(context: CaseContext, *, with_head: bool, absence: float | None = None) -> str:
    """Lose the node with the attempts of all jobs, as often as the seeds require, each of which counts one job's attempt."""
    absence = context.absence if absence is None else absence
    jobs = [context.submit() for _ in range(context.case.jobs)]
    size, orphans, ends = len(jobs), 0, [0.0]
    for number in range(ceil(len(context.seeds) / size)):
        seeds = context.seeds[number * size : (number + 1) * size]
        _wait_for_training(jobs, number + 1)
        time.sleep(context.random(seeds[0]).uniform(0, LATE_SECONDS))
        ended = [job.id for job in jobs if job.has_ended()]
        if ended:
            raise RuntimeError(f"{ended} ended before loss {number + 1}")
        home = next(node for node in context.profile.nodes if node.has_joined)
        lost = (context.profile.drivers() | context.profile.workers()) & home.processes()
        suspended = not with_head or number % FREE != FREE - 1
        faults = _begin(context, jobs, seeds, "suspended" if suspended else "running")
        _separate(context.profile, home, suspended=suspended, with_head=with_head)
        if suspended:
            _wait_for_training(jobs, number + 2)
        if not with_head:
            time.sleep(max(0.0, faults[0].at + absence - time.time()))
        orphans += len(running(lost))
        ends.append(_let_return(home, lost, connect=not with_head))
        for fault in faults:
            fault.seconds = time.time() - fault.at
    return f"{orphans} orphaned processes, which ended within {max(ends):.0f} s of their return"


def _wait_for_training(jobs: list[RunningJob], attempt: int) -> None:
    """Wait until the attempts have written a checkpoint."""
    for job in jobs:
        job.wait_for_steps(1, attempt)


def _let_return(node: Node, lost: set[int], *, connect: bool) -> float:
    """Resume a node, wait until its orphans have ended, and stop what is left of it. Return the seconds that they took."""
    node.resume()
    if connect:
        node.connect()
    begun = time.time()
    wait_until(lambda: not running(lost), "the orphans to end", ORPHAN_SECONDS)
    seconds = time.time() - begun
    node.kill()
    node.connect()
    return seconds


def _begin(context: CaseContext, jobs: list[RunningJob], seeds: list[int], note: str) -> list[Fault]:
    """Record one fault for each job."""
    faults = []
    for job, seed in zip(jobs, seeds, strict=False):
        with context.fault(job, seed, note, new_attempt=True) as fault:
            faults.append(fault)
    return faults


def _separate(profile: Profile, home: Node, *, suspended: bool, with_head: bool) -> None:
    """Separate a node from the cluster, and let another one join."""
    cluster = profile.cluster
    assert cluster is not None
    if suspended:
        home.suspend()
    home.disconnect()
    if with_head:
        kill(profile.head())
        cluster.wait_for_end()
        cluster.start()
    else:
        cluster.wait_for_loss(home.address)
    next(node for node in profile.nodes if node is not home).join(cluster, cluster.folder.parent)
