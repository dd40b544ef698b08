"""Faults that suspend processes: they keep their connections, and act on what they knew when they are resumed."""

import time
from collections.abc import Callable

import httpx

from bench.chaos.case import CaseContext
from bench.chaos.jobs import RunningJob
from bench.chaos.kills import at_each_attempt
from bench.chaos.machine import resume, suspend, wait_until
from bench.chaos.profiles import LEASE_SECONDS

MARGIN_SECONDS = (0.5, 2.0)
"""Time for which a suspension outlasts a lease."""
TAKEOVER_SECONDS = 10.0
"""Time beyond that in which another control plane takes the job over."""
HUNG_EARLY, HUNG_EARLY_SECONDS = 0.75, 1.0
"""As `kills.EARLY`: a driver that hangs later does not stop its worker, which finishes the stage."""


def suspend_each_plane(context: CaseContext) -> str:
    """Suspend two control planes in turn, each for longer than its lease: the other one takes over the job."""
    planes, taken_over = context.profile.planes, 0
    at_start = {seeds[0] for seeds in context.shares()}  # when there may be nothing to read
    for job, seed in context.moments_of_jobs():
        plane, other = planes[seed % 2], planes[1 - seed % 2]
        before = _version(other.url, job)
        with context.fault(job, seed):
            plane.suspend()
            try:
                time.sleep(LEASE_SECONDS + context.random(seed).uniform(*MARGIN_SECONDS))
                if seed not in at_start:
                    taken_over += _continues(other.url, job, before)
            finally:
                plane.resume()
    if taken_over < len(context.seeds) - len(at_start):
        context.problems.append(f"the other control plane continued only {taken_over} times")
    return f"the other one continued {taken_over} times"


def suspend_driver(context: CaseContext) -> str:
    return _suspend(context, lambda: context.profile.drivers(), "a driver")


def suspend_worker(context: CaseContext) -> str:
    return _suspend(context, lambda: context.profile.workers(), "a training worker")


def hang_drivers(context: CaseContext) -> str:
    """Suspend drivers for good: the time limit without progress ends their attempts."""

    def inject(job: RunningJob, seed: int) -> None:
        with context.fault(job, seed, new_attempt=True):
            suspend(context.profile.drivers(job.id))

    return at_each_attempt(context, inject, early=HUNG_EARLY, early_seconds=HUNG_EARLY_SECONDS)


def _suspend(context: CaseContext, processes: Callable[[], set[int]], what: str) -> str:
    """Suspend processes of an attempt for longer than a lease."""
    job = context.submit()
    job.wait_until(processes, what)
    for seed in context.moments(job, context.seeds):
        suspended = processes()
        with context.fault(job, seed):
            suspend(suspended)
            try:
                time.sleep(LEASE_SECONDS + context.random(seed).uniform(*MARGIN_SECONDS))
            finally:
                resume(suspended)
    return ""


def _continues(url: str, job: RunningJob, before: str) -> bool:
    """Wait until a control plane shows another version of the job. Return False if it does not."""
    try:
        wait_until(lambda: _version(url, job) != before, "the other control plane to continue", TAKEOVER_SECONDS)
    except TimeoutError:
        return False
    return True


def _version(url: str, job: RunningJob) -> str:
    """Return the version of the job that a control plane shows; it changes with each event."""
    return str(httpx.get(f"{url}/v1/jobs/{job.id}", timeout=60, trust_env=False).json()["etag"])
