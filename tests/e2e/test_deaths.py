"""Jobs whose processes are killed end with the same student, bit for bit, and a killed control plane finds its cluster again."""

from pathlib import Path

import pytest
from tinyclip.specfile import load_spec

from tests.e2e.service import wait_for
from tests.e2e.world import Undisturbed, World

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]

STUDENT = "student/model.safetensors"


def test_a_killed_worker_and_a_killed_control_plane_leave_no_trace_in_the_student(
    world: World, undisturbed: Undisturbed, deployment: str
) -> None:
    """What is deployed answers meanwhile, as before and after."""
    student, cluster = world.client.deployments.open(deployment), world.service.cluster()
    before = student.embed_texts(["a blue circle"])
    spec = load_spec(world.spec_file)
    job_id = world.client.jobs.submit(spec | {"stages": spec["stages"][:1]}).id
    stage = first_stage(world, job_id)

    wait_for(lambda: list(stage.glob("a1/step-*/manifest.json")), 300, "a checkpoint")
    world.service.kill_training_worker()
    saved = set(stage.glob("a1/step-*"))
    wait_for(lambda: set(stage.glob("a1/step-*")) - saved, 300, "a checkpoint of the restarted worker")
    world.service.kill()
    left = world.service.processes()
    meanwhile = student.embed_texts(["a blue circle"])
    world.service.start()
    ran = world.service.client("jobs", "watch", job_id)

    assert ran.code == 0, ran.out + ran.err
    job = world.client.jobs.get(job_id)
    events = list(world.client.jobs.events(job_id))
    assert job.attempt == 1, "the running attempt was not adopted"
    assert [event.stage for event in events if event.type == "worker.restarted"] == [0]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (stage / STUDENT).read_bytes() == (first_stage(world, undisturbed.job.id) / STUDENT).read_bytes()

    assert cluster["pid"] in left
    assert world.service.cluster() == cluster
    assert meanwhile == before
    assert world.client.deployments.wait(deployment, timeout=60).state == "ready"
    assert world.client.deployments.open(deployment).embed_texts(["a blue circle"]) == before


def first_stage(world: World, job_id: str) -> Path:
    return world.service.artifacts / "jobs" / job_id / "stages" / "0-thinner"
