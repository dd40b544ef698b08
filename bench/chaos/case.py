"""A case, and what its fault has at hand: the profile, the jobs and the seeds."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import Any

from bench.chaos.jobs import RunningJob
from bench.chaos.machine import wait_until
from bench.chaos.outcome import Fault, Outcome
from bench.chaos.profiles import Profile

BOTH = ("SQLite", "PostgreSQL")
START_SECONDS = 10.0
"""The first fault of a job falls into this time after its submission."""
SHARE = 0.85
"""The part of a job's steps in which the other faults happen: training continues during some of them."""
LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Case:
    """A kind of fault, repeated at random moments: `inject` submits the jobs, causes the faults and returns a remark.

    It raises `RuntimeError` for unexpected behaviour.
    """

    name: str
    what: str
    inject: "Callable[[CaseContext], str]"
    profiles: tuple[str, ...] = BOTH
    spec: str = "short"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the spec."""
    jobs: int = 1
    """Number of jobs over which the faults are distributed."""
    faults: int | None = None
    """Number of faults, instead of the number of seeds, where each takes long."""
    planes: int = 1
    """Control planes that run at its beginning."""
    attempts: tuple[float, float] = (0, 0)
    """Smallest and largest number of attempts that a fault costs its job."""
    exact: bool = True
    """False if its jobs end with another student than the undisturbed one, bit for bit; `inject` compares them."""
    needs_root: bool = False
    on_request: bool = False
    """True if it runs only when `--only` names it."""
    seconds: float = LIMIT_SECONDS
    """Time limit."""


class CaseContext:
    """The profile, the jobs and the faults of a running case."""

    def __init__(
        self, case: Case, profile: Profile, spec: Callable[[str], dict[str, Any]], undisturbed: Outcome, seeds: int, *,
        seed: int = 0, absence: float = 0.0,
    ) -> None:
        """`spec` makes a spec from a name; `seed` is the base of all seeds; a lost node is gone for `absence` seconds."""
        self.case, self.profile, self.undisturbed, self.absence = case, profile, undisturbed, absence
        self.seeds = list(range(seeds if case.faults is None else min(seeds, case.faults)))
        self.jobs: list[RunningJob] = []
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        """What was wrong during the faults."""
        self._spec, self._name, self._seed = spec, f"{case.name}-{profile.name.lower()}".replace(" ", "-"), seed

    def random(self, seed: int) -> Random:
        """Return the random numbers of one fault, the same for any number of seeds."""
        return Random(f"{self._seed} {self._name} {seed}")

    def submit(self) -> RunningJob:
        """Submit the next job, once the control plane is ready."""
        wait_until(self.profile.plane.is_ready, "the control plane")
        spec = {**self._spec(f"{self._name}-{len(self.jobs) + 1}"), **self.case.changes}
        job = RunningJob(self.profile.client, self.profile.files, spec)
        self.jobs.append(job)
        return job

    def shares(self) -> list[list[int]]:
        """Distribute the seeds over the jobs."""
        size = ceil(len(self.seeds) / self.case.jobs)
        return [share for i in range(self.case.jobs) if (share := self.seeds[i * size : (i + 1) * size])]

    def moments_of_jobs(self) -> Iterator[tuple[RunningJob, int]]:
        """Submit the jobs, each after the last moment of the one before it, and yield a job and a seed at its moment."""
        for seeds in self.shares():
            job = self.submit()
            for seed in self.moments(job, seeds):
                yield job, seed

    def moments(self, job: RunningJob, seeds: Sequence[int]) -> Iterator[int]:
        """Yield each seed at its moment: the first soon after the submission, the others at random steps of the job."""
        for place, seed in enumerate(seeds):
            if place == 0:
                time.sleep(self.random(seed).uniform(0, START_SECONDS))
            else:
                self.wait_for_moment(job, seeds, place)
            yield seed

    def wait_for_moment(self, job: RunningJob, seeds: Sequence[int], place: int) -> None:
        """Wait for the random step of one of a job's faults. Raises `RuntimeError` if the job has ended before."""
        job.wait_for_steps(int((place + self.random(seeds[place]).random()) / len(seeds) * SHARE * job.steps))
        if job.has_ended():
            raise RuntimeError(f"the job ended before fault {place + 1} of {len(seeds)}")

    @contextlib.contextmanager
    def fault(self, job: RunningJob, seed: int, note: str = "", *, new_attempt: bool = False) -> Iterator[Fault]:
        """Record a fault that lasts as long as the context."""
        fault = Fault(seed, job.id, 0.0, job.steps_done(), job.newest_attempt(), note=note, new_attempt=new_attempt)
        fault.at = time.time()
        try:
            yield fault
        finally:
            fault.seconds = time.time() - fault.at
            self.faults.append(fault)
