"""What is done to a running job, and what is seen meanwhile."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
from tinyclip.schemas import JobState

from bench.chaos.jobs import STEPS, RunningJob, examine
from bench.chaos.machine import Ballast, kill, until
from bench.chaos.profiles import Profile

MOMENTS, SHARE = 20, 0.7
"""Kills, and the part of a job in which they fall: training goes on meanwhile, and may be quicker than when it was alone."""
AWAY_SECONDS = 60.0
"""How long PostgreSQL is stopped."""
FULL_SECONDS = 20.0
"""How long a disk stays full, at least."""
BOTH = ("SQLite", "PostgreSQL")


@dataclass
class Scene:
    """Where a case happens."""

    profile: Profile
    job: RunningJob
    random: Random
    undisturbed_seconds: float
    """Of the same spec."""

    def wait_for_some_step(self) -> str:
        """Until a drawn checkpoint of the first stage's first two thirds is there, and up to a second more."""
        self.job.wait_for_step(self.random.randint(1, 2 * STEPS // 3))
        time.sleep(self.random.random())
        return f"after step {self.job.newest_step()}"


@dataclass(frozen=True)
class Case:
    """`hurt` does the harm while the job runs and returns a remark. Raises RuntimeError where something was not as promised."""

    name: str
    what: str
    hurt: Callable[[Scene], str]
    profiles: tuple[str, ...] = BOTH
    spec: str = "short"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To the spec."""
    planes: int = 1
    """Control planes that run when it begins."""
    attempts: tuple[int, ...] = (1,)
    """How many the job may have had at its end."""
    needs_root: bool = False


def at_moments(scene: Scene) -> str:
    """Moments are drawn over SHARE of the time that the job takes undisturbed; the control plane is started again at once."""
    plane = scene.profile.plane
    moments = sorted(scene.random.uniform(0, SHARE * scene.undisturbed_seconds) for _ in range(MOMENTS))
    while_starting = 0
    for number, moment in enumerate(moments, start=1):
        time.sleep(max(0.0, scene.job.begun + moment - time.monotonic()))
        if not plane.runs():
            raise RuntimeError(f"the control plane ended by itself before kill {number}")
        while_starting += not plane.is_ready()
        plane.kill()
        if scene.job.is_over():
            raise RuntimeError(f"the job was over before kill {number} of {MOMENTS}")
        plane.launch()
    until(plane.is_ready, "the control plane")
    return f"{MOMENTS} kills, {while_starting} of them before it was ready"


def driver(scene: Scene) -> str:
    remark = scene.wait_for_some_step()
    kill(scene.profile.drivers())
    return remark


def worker(scene: Scene) -> str:
    remark = scene.wait_for_some_step()
    kill(scene.profile.workers())
    return remark


def head(scene: Scene) -> str:
    """Embedded, the control plane starts it again. In production something else does: here, we."""
    remark, cluster = scene.wait_for_some_step(), scene.profile.cluster
    kill(scene.profile.head())
    if cluster is not None:
        until(lambda: scene.profile.readiness()["status"] == "degraded", "the control plane to miss the Ray head")
        cluster.start()
    return remark


def database(scene: Scene) -> str:
    """Training goes on, the API says 503."""
    assert scene.profile.postgres is not None
    remark = scene.wait_for_some_step()
    scene.profile.postgres.stop()
    before, end, answers = scene.job.steps_done(), time.monotonic() + AWAY_SECONDS, set()
    while time.monotonic() < end:
        answer = httpx.get(f"{scene.profile.plane.url}/v1/jobs/{scene.job.id}", timeout=60, trust_env=False)
        answers.add((answer.status_code, "retry-after" in answer.headers))
        time.sleep(1)
    trained = scene.job.steps_done() - before
    scene.profile.postgres.start()
    if answers != {(503, True)}:
        raise RuntimeError(f"the API answered {answers} while the database was away, not 503 with Retry-After")
    if trained <= 0:
        raise RuntimeError("training stood still while the database was away")
    return f"{remark}; {AWAY_SECONDS:g} s, {trained} steps trained meanwhile"


def one_of_two(scene: Scene) -> str:
    """Each is killed once, the other one lives: whichever had the job, it was lost to the other one."""
    first, second = scene.profile.planes
    remark = scene.wait_for_some_step()
    first.kill()
    first.start()
    scene.job.wait_for_step(STEPS // 2, stage=1)
    second.kill()
    return f"the first {remark}, the second after step {scene.job.newest_step(stage=1)} of the second stage"


def second_on_one_folder(scene: Scene) -> str:
    """SQLite belongs to one process: a second control plane is refused while the first one lives, and let in after its death."""
    plane, remark = scene.profile.plane, scene.wait_for_some_step()
    refused = plane.start_beside()
    if refused.code != 1 or "another tinyclip-server uses" not in refused.err:
        raise RuntimeError(f"a second control plane on the same folder ended with {refused.code}: {refused.err[-300:]}")
    plane.kill()
    plane.start()
    return remark


def node(scene: Scene) -> str:
    """A node and all on it are gone at once; another one joins when the head has noticed, and training goes on over both."""
    profile, cluster = scene.profile, scene.profile.cluster
    assert cluster is not None
    gone, fresh = profile.nodes
    remark = scene.wait_for_some_step()
    if not profile.workers() & gone.processes() or not profile.workers() - gone.processes():
        raise RuntimeError("the node and the head had not a training worker each")
    gone.dies()
    at = time.monotonic()
    until(lambda: gone.address not in cluster.alive(), "the head to miss the node")
    remark += f"; noticed after {time.monotonic() - at:.0f} s"
    fresh.joins(cluster, cluster.folder.parent / "n1")
    until(lambda: profile.workers() & fresh.processes(), "a training worker on the new node")
    return remark


def disk_full(scene: Scene) -> str:
    """Not a byte is left until nothing trains any more; then there is room again, and nobody is asked to do anything.

    /readyz says so, and so does the job's history. Embedded, database and Ray are on the same disk: its history can say nothing,
    and Ray's workers cannot even start.
    """
    remark, profile = scene.wait_for_some_step(), scene.profile
    at = time.monotonic()
    with Ballast(profile.disk).keep_full():
        until(lambda: not profile.workers(), "training to break")
        until(lambda: "No space left" in str(profile.readiness()), "/readyz to say so", every=0.5)
        if profile.postgres is not None:
            until(lambda: "attempt.held_up" in scene.job.history(), "the history to say so", every=0.5)
        time.sleep(max(0.0, at + FULL_SECONDS - time.monotonic()))
    return f"{remark}; full for {time.monotonic() - at:.0f} s"


def no_room_for_a_checkpoint(scene: Scene) -> str:
    """Events still fit: the job fails, its error names the path, and `retry` goes on once there is room."""
    remark, job = scene.wait_for_some_step(), scene.job
    ballast = Ballast(scene.profile.disk)
    ballast.fill(leave=2 << 20)
    failed = job.wait_for_state(JobState.FAILED, JobState.SUCCEEDED)
    ballast.free()
    if failed.error is None or str(job.folder) not in failed.error.message:
        raise RuntimeError(f"the error does not name the path: {failed.error}")
    if wrong := examine(job).wrong:
        raise RuntimeError(f"of the failed job: {wrong}")
    job.retry()
    return f"{remark}; its error: {failed.error.message.replace(str(job.artifacts), '…')}"


CASES = [
    Case("control-plane", f"kill -9 of the control plane at {MOMENTS} random moments of one job", at_moments, spec="long"),
    Case("driver", "kill -9 of the driver", driver, attempts=(2,)),
    Case("worker", "kill -9 of the training worker", worker),
    Case("ray-head", "kill -9 of the Ray head (GCS and raylet)", head, attempts=(1, 2)),
    Case("database", "PostgreSQL stopped for a minute", database, profiles=("PostgreSQL",), spec="long"),
    Case("two-control-planes", "two control planes, each killed once", one_of_two, ("PostgreSQL",), "long", planes=2),
    Case("two-control-planes", "a second control plane on one folder", second_on_one_folder, profiles=("SQLite",)),
    Case("node", "kill -9 of a node; another one joins", node, ("two nodes",), spec="pair", attempts=(1, 2), needs_root=True),
    Case("disk-full", "the disk is full, then there is room", disk_full, attempts=(1, 2), needs_root=True),
    Case(
        "no-room", "a checkpoint does not fit; room is made, then `jobs retry`", no_room_for_a_checkpoint, ("PostgreSQL",),
        changes={"max_attempts": 1}, needs_root=True,
    ),
]
