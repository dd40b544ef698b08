"""Faults that kill processes: of the control plane, of an attempt, of Ray, of a node."""

import time
from collections import deque
from collections.abc import Callable

from tinyclip.schemas import JobState

from bench.chaos.case import CaseContext
from bench.chaos.jobs import RunningJob
from bench.chaos.machine import kill, wait_until

EARLY, EARLY_SECONDS = 0.25, 5.0
"""The share of the faults of an attempt that occur before its first checkpoint, and the time after its start in which they do."""
LATE_SECONDS = 0.5
"""Time after a checkpoint in which the other ones occur."""


def kill_plane(context: CaseContext) -> str:
    """Kill the control plane and restart it each time, not waiting until it is ready."""
    plane, while_starting = context.profile.plane, 0
    for job, seed in context.moments_of_jobs():
        if not plane.runs():
            raise RuntimeError(f"the control plane exited before kill {seed + 1}")
        while_starting += not plane.is_ready()
        with context.fault(job, seed):
            plane.kill()
        plane.launch()
    wait_until(plane.is_ready, "the control plane")
    return f"{while_starting} of them before it was ready"


def kill_each_plane(context: CaseContext) -> str:
    """Kill two control planes in turn: the other one takes over the job. The one that was killed restarts meanwhile."""
    for job, seed in context.moments_of_jobs():
        plane, other = context.profile.planes[seed % 2], context.profile.planes[1 - seed % 2]
        wait_until(other.is_ready, "the other control plane")
        with context.fault(job, seed):
            plane.kill()
        plane.launch()
    for plane in context.profile.planes:
        wait_until(plane.is_ready, "the control plane")
    return ""


def start_second_on_same_folder(context: CaseContext) -> str:
    """Start a second control plane on a SQLite folder: it is refused while the first one runs, and starts after its death."""
    plane = context.profile.plane
    for job, seed in context.moments_of_jobs():
        with context.fault(job, seed):
            refused = plane.start_beside()
            if refused.code != 1 or "another tinyclip-server uses" not in refused.err:
                raise RuntimeError(f"a second control plane on the same folder ended with {refused.code}: {refused.err[-300:]}")
            plane.kill()
            plane.start()
    return ""


def kill_drivers(context: CaseContext) -> str:
    def inject(job: RunningJob, seed: int) -> None:
        with context.fault(job, seed, new_attempt=True):
            kill(context.profile.drivers(job.id))

    return at_each_attempt(context, inject)


def kill_workers(context: CaseContext) -> str:
    """Kill the training worker whenever the job has advanced since the last kill, or while a new worker starts."""
    job, profile = context.submit(), context.profile
    killed: set[int] = set()

    def others() -> set[int]:
        return profile.workers() - killed

    for seed in context.seeds:
        random, before = context.random(seed), job.steps_done()
        job.wait_until(others, "a training worker")
        if random.random() < EARLY:
            time.sleep(random.uniform(0, EARLY_SECONDS))
        else:
            job.wait_for_steps(before + 1)
            time.sleep(random.uniform(0, LATE_SECONDS))
        _expect_running(job, seed)
        workers = profile.workers()
        with context.fault(job, seed):
            kill(workers)
        killed |= workers
    return ""


def kill_head(context: CaseContext) -> str:
    """Kill the Ray head. The embedded service restarts it; in production the operator does, here this function."""
    job, profile = context.submit(), context.profile
    for seed in context.seeds:
        random = context.random(seed)
        job.wait_for_steps(job.steps_done() + 1)
        time.sleep(random.uniform(0, LATE_SECONDS))
        _expect_running(job, seed)
        with context.fault(job, seed):
            kill(profile.head())
            if profile.cluster is not None:
                wait_until(lambda: profile.readiness()["status"] == "degraded", "the control plane to notice the loss", every=0.5)
                profile.cluster.wait_for_end()
                profile.cluster.start()
    return ""


def kill_node(context: CaseContext) -> str:
    """Kill a node with all its processes. Once the head has noticed, another node joins, and training continues on both."""
    profile, cluster, job, noticed = context.profile, context.profile.cluster, context.submit(), []
    assert cluster is not None
    for seed in context.seeds:
        killed = next(node for node in profile.nodes if node.has_joined)
        added = next(node for node in profile.nodes if not node.has_joined)
        job.wait_for_steps(job.steps_done() + 1)
        time.sleep(context.random(seed).uniform(0, LATE_SECONDS))
        _expect_running(job, seed)
        if not profile.workers() & killed.processes() or not profile.workers() - killed.processes():
            raise RuntimeError("the node and the head do not have one training worker each")
        with context.fault(job, seed) as fault:
            killed.kill()
            cluster.wait_for_loss(killed.address)
            noticed.append(time.time() - fault.at)
            added.join(cluster, cluster.folder.parent)
        wait_until(lambda node=added: profile.workers() & node.processes(), "a training worker on the new node")
    return f"noticed after {max(noticed):.0f} s at most"


def at_each_attempt(
    context: CaseContext, inject: Callable[[RunningJob, int], None], *, early: float = EARLY, early_seconds: float = EARLY_SECONDS
) -> str:
    """Inject a fault into each attempt of several jobs at once: after its first checkpoint or, for a share, after its start.

    Another job follows one that ends before its last fault.
    """
    left = {context.submit(): deque(share) for share in context.shares()}
    struck: dict[RunningJob, int] = {}
    due: dict[RunningJob, float] = {}
    while waiting := [job for job, seeds in left.items() if seeds]:
        for job in waiting:
            if job.has_ended():
                left[context.submit()] = left.pop(job)
                continue
            random, attempt = context.random(left[job][0]), job.newest_attempt()
            is_early = random.random() < early
            if attempt > struck.get(job, 0) and job not in due and (is_early or job.steps_done(attempt)):
                due[job] = time.monotonic() + random.uniform(0, early_seconds if is_early else LATE_SECONDS)
            if time.monotonic() >= due.get(job, float("inf")):
                inject(job, left[job][0])
                if job.has_ended():  # it had just succeeded: the fault, too late for it, belongs to the job that follows
                    context.faults.pop()
                else:
                    left[job].popleft()
                struck[job] = attempt
                del due[job]
        _expect_not_failed(waiting)
        time.sleep(0.1)
    return f"{len(context.jobs) - len(context.shares())} more jobs" if len(context.jobs) > len(context.shares()) else ""


def _expect_running(job: RunningJob, seed: int) -> None:
    if job.has_ended():
        raise RuntimeError(f"the job ended before the fault of seed {seed}")


def _expect_not_failed(jobs: list[RunningJob]) -> None:
    for job in jobs:
        shown = job.get_if_available()
        if shown is not None and shown.state in (JobState.FAILED, JobState.CANCELLED):
            raise RuntimeError(f"{job.id} {shown.state}: {shown.error}")
