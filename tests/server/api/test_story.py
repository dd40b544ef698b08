"""One job from its spec to a model version, through the API."""

import re

from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.events import progress
from tests.server.service import Service, on_both_databases

pytestmark = on_both_databases


async def test_a_job_becomes_a_model_version(service: Service) -> None:
    job = await service.submit()
    assert re.fullmatch(r"job_[a-z0-9]{16}", job["id"])
    assert (job["state"], job["attempt"], job["model"], job["ray_submission_id"]) == ("queued", 0, None, None)
    assert [stage["state"] for stage in job["stages"]] == ["pending", "pending"]
    assert job["stages"][0]["student"]["image_params"] == 1000

    await service.tick()
    job = await service.job(job["id"])
    assert (job["state"], job["attempt"]) == ("starting", 1)
    submission = f"tc-{job['id']}-a1"
    assert service.ray.submissions == [submission]
    assert job["ray_submission_id"] == submission
    assert service.ray.entrypoints[submission].startswith("exec ")
    module = f"-m tinyclip_workers.training.driver --artifacts {service.artifacts} --job {job['id']} --attempt 1"
    assert service.ray.entrypoints[submission].endswith(module)
    assert service.ray.metadata[submission] == {
        "job_name": "emoji-half", "tinyclip_job": job["id"], "tinyclip_attempt": "1",
    }


async def test_the_agreement_with_the_teacher_is_shown(service: Service) -> None:
    worker = await service.running()
    for step, kl in ((0, 0.9), (4, 0.4)):
        worker.emit({"type": "agreement.measured", "stage": 0, "data": {"step": step, "kl": kl, "start_kl": 0.9, "pairs": 256}})
    worker.emit(progress(5, loss=2.0))

    await service.tick()

    metrics = (await service.job(worker.job))["stages"][0]["metrics"]
    assert metrics == {"agreement": {"start_kl": 0.9, "kl": 0.4, "step": 4}, "last": {"loss": 2.0, "step": 5}}
    series = (await service.get(f"/v1/jobs/{worker.job}/metrics?names=teacher_kl"))["series"]
    assert series == {"teacher_kl": [{"stage": 0, "step": 0, "value": 0.9}, {"stage": 0, "step": 4, "value": 0.4}]}


async def test_progress_metrics_and_logs_are_shown(service: Service) -> None:
    worker = await service.running()
    service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.RUNNING
    worker.emit(
        progress(4, loss=2.5, lr=0.1),
        {"type": "log", "message": "loading shards", "data": {"level": "warning", "source": "rank0"}},
        progress(5, loss=2.0, lr=0.1),
    )

    await service.tick()

    job = await service.job(worker.job)
    assert job["state"] == "running"
    assert job["progress"] == {
        "stage": 0, "stages": 2, "step": 5, "steps": 10, "fraction": 0.25, "samples_seen": 50, "pairs_per_second": 5.0,
        "eta_seconds": 15.0, "waiting": None,
    }
    assert job["stages"][0]["state"] == "running"
    assert job["stages"][0]["metrics"] == {"last": {"loss": 2.0, "lr": 0.1, "step": 5}}
    metrics = await service.get(f"/v1/jobs/{worker.job}/metrics?names=loss")
    assert metrics["series"] == {"loss": [{"stage": 0, "step": 4, "value": 2.5}, {"stage": 0, "step": 5, "value": 2.0}]}
    assert metrics["last"] == 4
    lines = await service.items(f"/v1/jobs/{worker.job}/logs")
    assert [(line["id"], line["level"], line["source"], line["message"]) for line in lines] == [
        (1, "warning", "rank0", "loading shards")
    ]


async def test_success_registers_the_version(service: Service) -> None:
    worker = await service.running()
    worker.emit({"type": "stage.evaluating", "stage": 0})
    worker.emit({
        "type": "evaluation", "stage": 0,
        "data": {"task": "emoji", "step": 10, "student": {"top1": 0.4}, "teacher": {"top1": 0.5}},
    })
    worker.emit({"type": "stage.finished", "stage": 0})
    worker.succeed()

    await service.tick()

    job = await service.job(worker.job)
    assert job["state"] == "succeeded"
    assert job["model"] == {"name": "emoji-half", "version": 1}
    assert job["progress"]["fraction"] == 1.0
    assert [stage["state"] for stage in job["stages"]] == ["succeeded", "succeeded"]
    assert job["stages"][0]["evaluation"] == {"emoji": {"student": {"top1": 0.4}, "teacher": {"top1": 0.5}}}
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    version = await service.get("/v1/models/emoji-half/versions/latest")
    assert (version["version"], version["job"]) == (1, worker.job)


async def test_the_history_is_numbered_without_gaps(service: Service) -> None:
    job = await service.succeeded("emoji-half")

    events = await service.events(job["id"])

    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events] == [
        "job.created", "job.starting", "attempt.submitted", "attempt.started", "job.running", "stage.started", "stage.finished",
        "model.exported", "attempt.succeeded", "job.succeeded",
    ]


async def test_two_jobs_of_the_same_name_make_two_versions(service: Service) -> None:
    first, second = await service.succeeded("emoji"), await service.succeeded("emoji")

    assert (first["model"]["version"], second["model"]["version"]) == (1, 2)
    model = await service.get("/v1/models/emoji")
    assert (model["latest"], model["versions"]) == (2, [1, 2])


async def test_an_automatic_stage_shows_its_estimate_until_it_is_pruned(service: Service) -> None:
    worker = await service.started()
    planned = (await service.job(worker.job))["stages"][0]["student"]
    worker.emit(
        {"type": "attempt.started"},
        {"type": "stage.started", "data": {"name": "s", "inherit": "auto", "steps": 10, "student": None}, "stage": 0},
    )
    await service.tick()
    before = (await service.job(worker.job))["stages"][0]["student"]
    worker.emit({"type": "stage.pruned", "stage": 0, "data": {**planned, "image_params": 777}})

    await service.tick()

    assert before == planned
    assert (await service.job(worker.job))["stages"][0]["student"]["image_params"] == 777
