"""Jobs submitted to the embedded service at once: one trains at a time, in order; deployments start beside it."""

import itertools
from typing import Any

import pytest
from tinyclip.schemas import Event, Job, JobState
from tinyclip.specfile import load_spec

from tests.e2e.service import wait_for
from tests.e2e.world import Undisturbed, World

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]

END_SECONDS = 600


def submit(world: World, *, steps: int, **changes: Any) -> Job:
    """Submit a job with one stage and no evaluation."""
    stage = {"name": "thinner", "student": {"text": {"layers": 1}}, "train": {"steps": steps}}
    return world.client.jobs.submit(load_spec(world.spec_file) | {"evaluation": {"tasks": []}, "stages": [stage]} | changes)


def state(world: World, job: Job) -> JobState:
    return world.client.jobs.get(job.id).state


def time_of(world: World, job: Job, *types: str) -> Any:
    """Return when the first event of these types happened."""
    events: list[Event] = list(world.client.jobs.events(job.id))
    return next(event.created_at for event in events if event.type in types)


def test_beside_a_training_a_deployment_starts_and_the_next_job_waits_and_cancelled_it_leaves_nothing_running(
    world: World, undisturbed: Undisturbed
) -> None:
    assert undisturbed.job.model is not None
    model = f"{undisturbed.job.model.name}@{undisturbed.job.model.version}"
    cpus = world.service.cluster()["cpus"]
    endless = submit(world, steps=1_000_000, resources={"workers": 1, "cpus_per_worker": cpus})
    following = submit(world, steps=1)
    next(job for job in world.client.jobs.watch(endless.id, timeout=END_SECONDS) if job.progress.step > 0)

    world.client.deployments.put("beside", model, engine="torch")
    deployed = world.client.deployments.wait("beside", timeout=120)
    meanwhile = (state(world, endless), state(world, following))
    world.client.deployments.delete("beside")
    asked = world.service.client("jobs", "cancel", endless.id)
    watched = world.service.client("jobs", "watch", endless.id)
    next(job for job in world.client.jobs.watch(following.id, timeout=END_SECONDS) if job.state is not JobState.QUEUED)
    world.client.jobs.cancel(following.id)
    ended = [world.client.jobs.wait(job.id, timeout=END_SECONDS).state for job in (endless, following)]

    assert deployed.state == "ready", deployed.message
    assert meanwhile == (JobState.RUNNING, JobState.QUEUED)
    assert asked.code == 0, asked.err
    assert watched.code == 3, watched.out + watched.err
    assert ended == [JobState.CANCELLED, JobState.CANCELLED]
    assert time_of(world, endless, "job.cancelled") <= time_of(world, following, "job.starting")
    wait_for(lambda: not world.service.training_workers(), 30, "the workers' end")


@pytest.mark.long
def test_five_jobs_run_one_after_the_other_in_order(world: World) -> None:
    jobs = [submit(world, steps=1) for _ in range(5)]
    states = [state(world, job) for job in jobs]

    ended = [world.client.jobs.wait(job.id, timeout=END_SECONDS).state for job in jobs]

    assert states[1:] == [JobState.QUEUED] * 4
    assert ended == [JobState.SUCCEEDED] * 5
    for first, second in itertools.pairwise(jobs):
        assert time_of(world, first, "job.succeeded") <= time_of(world, second, "job.starting")
