"""Faults of what the service depends on: database, disk, object store, and the network to Ray and to the store."""

import time
from collections.abc import Callable

import httpx
from tinyclip.schemas import JobState

from bench.chaos.case import CaseContext
from bench.chaos.jobs import RunningJob
from bench.chaos.machine import DiskFiller, wait_until
from bench.chaos.outcome import examine
from tests.fault_proxy import Fault, FaultProxy

OUTAGE_SECONDS = (0.5, 2.0)
LONG_OUTAGE_SECONDS = 60.0
"""Time for which PostgreSQL is stopped: at first for a short time each, at last for a minute."""
FULL_SECONDS = 20.0
"""Minimum time for which a disk stays full."""
PARTITION_SECONDS = (1.0, 4.0)
HANG_SECONDS = (1.0, 3.0)
ANSWER_SECONDS = 5.0
"""Time in which the API answers while the store hangs."""


def stop_database(context: CaseContext) -> str:
    """Stop PostgreSQL: training continues, and the API answers 503."""
    postgres, job, trained = context.profile.postgres, context.submit(), 0
    assert postgres is not None
    for seed in context.moments(job, context.seeds):
        last = seed == context.seeds[-1]
        before, answers = job.steps_done(), set()
        with context.fault(job, seed):
            postgres.stop()
            end = time.monotonic() + (LONG_OUTAGE_SECONDS if last else context.random(seed).uniform(*OUTAGE_SECONDS))
            while time.monotonic() < end:
                answer = httpx.get(f"{context.profile.plane.url}/v1/jobs/{job.id}", timeout=60, trust_env=False)
                answers.add((answer.status_code, "retry-after" in answer.headers))
                time.sleep(0.5)
            trained = job.steps_done() - before
            postgres.start()
        if answers != {(503, True)}:
            context.problems.append(f"the API answered {answers} while the database was stopped, not 503 with Retry-After")
    if trained <= 0:
        context.problems.append("no training step while the database was stopped for a minute")
    return f"the last one for {LONG_OUTAGE_SECONDS:g} s, with {trained} steps meanwhile"


def fill_disk(context: CaseContext) -> str:
    """Fill the disk until no worker trains, then free it; the job continues without intervention.

    /readyz and the job's history report the full disk. The embedded service has its database on the same disk, so the
    history cannot report it.
    """
    profile, job = context.profile, context.submit()
    for seed in context.seeds:
        job.wait_for_steps(job.steps_done() + 1)
        time.sleep(context.random(seed).random())
        before = job.history().count("attempt.held_up")
        with context.fault(job, seed) as fault, DiskFiller(profile.disk).keep_full():
            wait_until(lambda: not profile.workers(), "the end of the training workers")
            wait_until(lambda: "No space left" in str(profile.readiness()), "/readyz to report the full disk", every=0.5)
            if profile.postgres is not None:
                reported = lambda before=before: job.history().count("attempt.held_up") > before  # noqa: E731
                wait_until(reported, "the history to report the full disk", every=0.5)
            time.sleep(max(0.0, fault.at + FULL_SECONDS - time.time()))
    return f"full for up to {max(fault.seconds for fault in context.faults):.0f} s"


def leave_no_space_for_a_checkpoint(context: CaseContext) -> str:
    """Leave space for events only: the job fails, its error names the path, and `retry` continues once there is space."""
    job = context.submit()
    (seed,) = context.seeds
    job.wait_for_steps(int(context.random(seed).uniform(0.1, 0.6) * job.steps))
    filler = DiskFiller(context.profile.disk)
    with context.fault(job, seed):
        filler.fill(keep_free=2 << 20)
        failed = job.wait_for_state(JobState.FAILED, JobState.SUCCEEDED)
        filler.free()
    if failed.error is None or job.folder not in failed.error.message:
        raise RuntimeError(f"the error does not name the path: {failed.error}")
    if wrong := examine(job).wrong:
        raise RuntimeError(f"the failed job: {wrong}")
    job.retry()
    return f"its error: {failed.error.message.replace(job.files.root, '…').replace(job.id, '…')}"


def cut_off_ray(context: CaseContext) -> str:
    """Partition the control plane and Ray, the first time while a job is submitted: nothing is submitted twice."""
    ray = context.profile.ray
    assert ray is not None

    def inject(seed: int) -> None:
        effect = seed % 4
        if effect == 0:
            ray.refuse()
        elif effect == 1:
            ray.set(Fault("drop"))  # Ray receives the request, and its response is lost
        elif effect == 2:
            ray.set(Fault("error", forward=False))
        else:
            ray.set(Fault("hang"))

    _outages(context, inject, lambda: _heal(ray), PARTITION_SECONDS)
    return "a quarter each: refused connections, lost responses, 503, no response"


def cut_off_store(context: CaseContext) -> str:
    """Partition the nodes and the object store, which the control plane still reaches."""
    store = context.profile.stores[1]

    def inject(seed: int) -> None:
        if seed % 2 == 0:
            store.refuse()
        else:
            store.set(Fault("hang"))

    _outages(context, inject, lambda: _heal(store), PARTITION_SECONDS)
    return "half each: refused connections, no response"


def hang_store(context: CaseContext) -> str:
    """Let the store hang for everyone; the API still answers."""
    slowest = 0.0

    def inject(seed: int) -> None:
        nonlocal slowest
        for store in context.profile.stores:
            store.set(Fault("hang", forward=seed % 2 == 0))
        for path in ("/livez", f"/v1/jobs/{context.jobs[-1].id}" if context.jobs else "/v1/jobs"):
            begun = time.monotonic()
            status = httpx.get(context.profile.plane.url + path, timeout=60, trust_env=False).status_code
            slowest = max(slowest, time.monotonic() - begun)
            if status != 200:
                context.problems.append(f"{path} answered {status} while the store was hanging")

    _outages(context, inject, lambda: _heal(*context.profile.stores), HANG_SECONDS)
    if slowest > ANSWER_SECONDS:
        context.problems.append(f"the API took {slowest:.1f} s to answer while the store was hanging")
    return f"the API answered within {slowest:.1f} s"


def lose_responses(context: CaseContext) -> str:
    """Lose half of the responses to conditional writes and a tenth of all others: the store has done what it was asked."""
    return _unreliable_store(context, lambda seed: [
        Fault("drop", header="If-None-Match", probability=0.5, seed=seed),
        Fault("truncate", methods=("GET",), probability=0.05, seed=seed),
        Fault("drop", probability=0.1, seed=seed),
    ])  # fmt: skip


def slow_down_store(context: CaseContext) -> str:
    return _unreliable_store(context, lambda seed: [
        Fault("delay", probability=0.2, seed=seed, seconds=1.0), Fault("delay", probability=0.02, seed=seed, seconds=4.0),
    ])  # fmt: skip


def answer_503(context: CaseContext) -> str:
    """Answer 503 to a share of the requests, after half of which the store has done what it was asked."""
    return _unreliable_store(context, lambda seed: [
        Fault("error", forward=False, probability=0.1, seed=seed), Fault("error", forward=True, probability=0.1, seed=-1 - seed),
    ])  # fmt: skip


def _unreliable_store(context: CaseContext, faults: Callable[[int], list[Fault]]) -> str:
    """Run jobs with an unreliable store, whose faults another seed chooses from each moment on. A job follows the last one's
    last moment."""
    stores, affected, total = context.profile.stores, 0, 0
    for store in stores:
        store.forget_requests()

    def begin(seed: int) -> None:
        for number, store in enumerate(stores):
            store.set(*faults(2 * seed + number))

    try:
        for seeds in context.shares():
            begin(seeds[0])
            job = context.submit()
            for seed in context.moments(job, seeds):
                with context.fault(job, seed):
                    begin(seed)
        for job in context.jobs:
            job.wait_for_state(*(state for state in JobState if state.terminal))
    finally:
        _heal(*stores)
    for store in stores:
        requests = store.requests()
        total += len(requests)
        affected += sum(bool(request["faults"]) for request in requests)
        store.forget_requests()
    return f"{affected} of {total} requests"


def _outages(
    context: CaseContext, begin: Callable[[int], None], end: Callable[[], None], seconds: tuple[float, float]
) -> None:
    """Run jobs with outages, of which the first one of each job begins before its submission. A job follows the last one's
    last outage."""
    for seeds in context.shares():
        job: RunningJob | None = None
        for place, seed in enumerate(seeds):
            if job is not None:
                context.wait_for_moment(job, seeds, place)
            begin(seed)
            try:
                job = job or context.submit()
                with context.fault(job, seed):
                    time.sleep(context.random(seed).uniform(*seconds))
            finally:
                end()


def _heal(*proxies: FaultProxy) -> None:
    for proxy in proxies:
        proxy.refuse(False)
        proxy.set()
