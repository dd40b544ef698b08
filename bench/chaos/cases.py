"""The cases: a fault in a running job, and the checks during it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
from tinyclip.schemas import JobState

from bench.chaos.jobs import STEPS, RunningJob, examine
from bench.chaos.machine import DiskFiller, kill, wait_until
from bench.chaos.profiles import Profile

MOMENTS, SHARE = 20, 0.7
"""Kills, and the part of a job in which they happen: training continues, perhaps faster than in the undisturbed run."""
STOPPED_SECONDS = 60.0
"""Time for which PostgreSQL is stopped."""
FULL_SECONDS = 20.0
"""Minimum time for which a disk stays full."""
BOTH = ("SQLite", "PostgreSQL")


@dataclass
class CaseContext:
    """The profile and the job of a running case."""

    profile: Profile
    job: RunningJob
    random: Random
    undisturbed_seconds: float
    """Seconds of the undisturbed run of the same spec."""

    def wait_for_random_step(self) -> str:
        """Wait for a random checkpoint in the first two thirds of the first stage, and up to a second more."""
        self.job.wait_for_step(self.random.randint(1, 2 * STEPS // 3))
        time.sleep(self.random.random())
        return f"after step {self.job.newest_step()}"


@dataclass(frozen=True)
class Case:
    """A fault: `inject` causes it during the job and returns a remark. It raises `RuntimeError` for unexpected behaviour."""

    name: str
    what: str
    inject: Callable[[CaseContext], str]
    profiles: tuple[str, ...] = BOTH
    spec: str = "short"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the spec."""
    planes: int = 1
    """Control planes that run at its beginning."""
    attempts: tuple[int, ...] = (1,)
    """Allowed numbers of attempts of the job."""
    needs_root: bool = False


def kill_plane(context: CaseContext) -> str:
    """Kill the control plane at random moments in the first SHARE of the job, and restart it each time."""
    plane = context.profile.plane
    moments = sorted(context.random.uniform(0, SHARE * context.undisturbed_seconds) for _ in range(MOMENTS))
    while_starting = 0
    for number, moment in enumerate(moments, start=1):
        time.sleep(max(0.0, context.job.begun + moment - time.monotonic()))
        if not plane.runs():
            raise RuntimeError(f"the control plane exited before kill {number}")
        while_starting += not plane.is_ready()
        plane.kill()
        if context.job.has_ended():
            raise RuntimeError(f"the job ended before kill {number} of {MOMENTS}")
        plane.launch()
    wait_until(plane.is_ready, "the control plane")
    return f"{MOMENTS} kills, {while_starting} of them before it was ready"


def kill_driver(context: CaseContext) -> str:
    remark = context.wait_for_random_step()
    kill(context.profile.drivers())
    return remark


def kill_worker(context: CaseContext) -> str:
    remark = context.wait_for_random_step()
    kill(context.profile.workers())
    return remark


def kill_head(context: CaseContext) -> str:
    """Kill the Ray head. The embedded service restarts it; in production the operator does, here this function."""
    remark, cluster = context.wait_for_random_step(), context.profile.cluster
    kill(context.profile.head())
    if cluster is not None:
        wait_until(lambda: context.profile.readiness()["status"] == "degraded", "the control plane to notice the loss")
        cluster.start()
    return remark


def stop_database(context: CaseContext) -> str:
    """Stop PostgreSQL: training continues, and the API answers 503."""
    assert context.profile.postgres is not None
    remark = context.wait_for_random_step()
    context.profile.postgres.stop()
    before, end, answers = context.job.steps_done(), time.monotonic() + STOPPED_SECONDS, set()
    while time.monotonic() < end:
        answer = httpx.get(f"{context.profile.plane.url}/v1/jobs/{context.job.id}", timeout=60, trust_env=False)
        answers.add((answer.status_code, "retry-after" in answer.headers))
        time.sleep(1)
    trained = context.job.steps_done() - before
    context.profile.postgres.start()
    if answers != {(503, True)}:
        raise RuntimeError(f"the API answered {answers} while the database was stopped, not 503 with Retry-After")
    if trained <= 0:
        raise RuntimeError("no training step while the database was stopped")
    return f"{remark}; {STOPPED_SECONDS:g} s, {trained} steps trained meanwhile"


def kill_each_plane(context: CaseContext) -> str:
    """Kill each of two control planes once: whichever holds the job's lease, the other one takes over."""
    first, second = context.profile.planes
    remark = context.wait_for_random_step()
    first.kill()
    first.start()
    context.job.wait_for_step(STEPS // 2, stage=1)
    second.kill()
    return f"the first {remark}, the second after step {context.job.newest_step(stage=1)} of the second stage"


def start_second_on_same_folder(context: CaseContext) -> str:
    """Start a second control plane on a SQLite folder: it is refused while the first one runs, and starts after its death."""
    plane, remark = context.profile.plane, context.wait_for_random_step()
    refused = plane.start_beside()
    if refused.code != 1 or "another tinyclip-server uses" not in refused.err:
        raise RuntimeError(f"a second control plane on the same folder ended with {refused.code}: {refused.err[-300:]}")
    plane.kill()
    plane.start()
    return remark


def kill_node(context: CaseContext) -> str:
    """Kill a node with all its processes. Once the head has noticed, another node joins, and training continues on both."""
    profile, cluster = context.profile, context.profile.cluster
    assert cluster is not None
    killed, added = profile.nodes
    remark = context.wait_for_random_step()
    if not profile.workers() & killed.processes() or not profile.workers() - killed.processes():
        raise RuntimeError("the node and the head do not have one training worker each")
    killed.kill()
    begun = time.monotonic()
    wait_until(lambda: killed.address not in cluster.alive(), "the head to notice the loss of the node")
    remark += f"; noticed after {time.monotonic() - begun:.0f} s"
    added.join(cluster, cluster.folder.parent / "n1")
    wait_until(lambda: profile.workers() & added.processes(), "a training worker on the new node")
    return remark


def fill_disk(context: CaseContext) -> str:
    """Fill the disk until no worker trains, then free it; the job continues without intervention.

    /readyz and the job's history report the full disk. The embedded service has its database on the same disk, so the
    history cannot report it.
    """
    remark, profile = context.wait_for_random_step(), context.profile
    begun = time.monotonic()
    with DiskFiller(profile.disk).keep_full():
        wait_until(lambda: not profile.workers(), "the end of the training workers")
        wait_until(lambda: "No space left" in str(profile.readiness()), "/readyz to report the full disk", every=0.5)
        if profile.postgres is not None:
            wait_until(lambda: "attempt.held_up" in context.job.history(), "the history to report the full disk", every=0.5)
        time.sleep(max(0.0, begun + FULL_SECONDS - time.monotonic()))
    return f"{remark}; full for {time.monotonic() - begun:.0f} s"


def leave_no_space_for_a_checkpoint(context: CaseContext) -> str:
    """Leave space for events only: the job fails, its error names the path, and `retry` continues once there is space."""
    remark, job = context.wait_for_random_step(), context.job
    filler = DiskFiller(context.profile.disk)
    filler.fill(keep_free=2 << 20)
    failed = job.wait_for_state(JobState.FAILED, JobState.SUCCEEDED)
    filler.free()
    if failed.error is None or str(job.folder) not in failed.error.message:
        raise RuntimeError(f"the error does not name the path: {failed.error}")
    if wrong := examine(job).wrong:
        raise RuntimeError(f"the failed job: {wrong}")
    job.retry()
    return f"{remark}; its error: {failed.error.message.replace(str(job.artifacts), '…')}"


CASES = [
    Case("control-plane", f"kill -9 of the control plane at {MOMENTS} random moments of one job", kill_plane, spec="long"),
    Case("driver", "kill -9 of the driver", kill_driver, attempts=(2,)),
    Case("worker", "kill -9 of the training worker", kill_worker),
    Case("ray-head", "kill -9 of the Ray head (GCS and raylet)", kill_head, attempts=(1, 2)),
    Case("database", "PostgreSQL stopped for a minute", stop_database, profiles=("PostgreSQL",), spec="long"),
    Case("two-control-planes", "two control planes, each killed once", kill_each_plane, ("PostgreSQL",), "long", planes=2),
    Case("two-control-planes", "a second control plane on one folder", start_second_on_same_folder, profiles=("SQLite",)),
    Case("node", "kill -9 of a node; another one joins", kill_node, ("two nodes",), "pair", attempts=(1, 2), needs_root=True),
    Case("disk-full", "the disk is full, then there is room", fill_disk, attempts=(1, 2), needs_root=True),
    Case(
        "no-room", "a checkpoint does not fit; room is made, then `jobs retry`", leave_no_space_for_a_checkpoint, ("PostgreSQL",),
        changes={"max_attempts": 1}, needs_root=True,
    ),
]
