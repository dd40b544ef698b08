"""A whole job of automatic and other stages, driver and worker in this process: no cluster, everything else is real."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec, ModelVersion
from tinyclip.schemas.artifacts import JobDocument, attempt_events, job_spec
from tinyclip_workers import run as driver
from tinyclip_workers import worker
from tinyclip_workers.architecture import build_model, summarize
from tinyclip_workers.jobrun import JobRun
from tinyclip_workers.masked import removed_share
from tinyclip_workers.model_folder import load_folder
from tinyclip_workers.stage import Stage
from tinyclip_workers.store import Store

from tests.workers.auto_stages import PRUNE_STEP, STEPS, TEACHER, auto, spec_of
from tests.workers.models import write_folder
from tests.workers.shapes_data import write_shards


@pytest.fixture(scope="module", autouse=True)
def no_cluster() -> Iterator[None]:
    """One worker, called by the driver itself."""

    def group(run: JobRun, artifacts: str, stage: Stage) -> Any:
        config = {"artifacts": artifacts, "job": run.document.job, "attempt": run.attempt, "stage": stage.to_json()}
        return SimpleNamespace(fit=lambda: worker.train_stage_worker(json.loads(json.dumps(config))))

    gauge = SimpleNamespace(set=lambda _: None, set_default_tags=lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_worker_group", group)
        patch.setattr(driver, "_cluster_size", dict)
        patch.setattr("ray.is_initialized", lambda: True)
        patch.setattr("ray.train.report", lambda metrics: None)
        patch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
        patch.setattr("tinyclip_workers.progress.Gauge", lambda *_, **__: gauge)
        yield


class Job:
    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.root, self.store = str(folder), Store(str(folder))
        document = JobDocument(job="job_1", name=spec.name, spec=spec, model_name=spec.name, model_version=1)
        self.store.write_bytes(job_spec("job_1"), document.model_dump_json().encode())

    def attempt(self, number: int = 1) -> bool:
        return driver.run_attempt(JobRun.open(self.root, "job_1", number), self.root)

    def events(self, type: str, attempt: int = 1) -> list[dict[str, Any]]:
        folder = attempt_events("job_1", attempt)
        segments = [self.store.read_bytes(f"{folder}/{name}").decode() for name in self.store.list(folder)]
        lines = [json.loads(line) for segment in segments for line in segment.splitlines()]
        return [event for event in lines if event["type"] == type]

    def version(self) -> ModelVersion:
        return ModelVersion.model_validate_json(self.store.read_bytes("models/shapes/1/model.json"))

    def weights(self) -> dict[str, torch.Tensor]:
        return load_folder(self.store.uri("models/shapes/1")).model.state_dict()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., JobSpec]:
    """A spec of some stages, with a teacher to load and something to evaluate at every tenth step."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    write_folder(folder / "teacher", build_model(TEACHER), TEACHER)
    shards = write_shards(folder / "data")
    task = {"name": "find", "kind": "retrieval", "shards": shards, "image_key": ["png"]}

    def of(*stages: dict[str, Any]) -> JobSpec:
        changes = {
            "teacher": {"model": f"local-dir:{folder}/teacher"},
            "evaluation": {"tasks": [task], "every_steps": 10},
            "checkpoint": {"every_steps": 10, "keep": 2},
        }
        return JobSpec.model_validate(spec_of(shards, *stages, **changes).model_dump())

    return of


TWO = (auto(0.3, "more"), auto(0.5, "less", start_sparsity=0.3))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, spec: Callable[..., JobSpec]) -> Job:
    job = Job(tmp_path_factory.mktemp("undisturbed"), spec(*TWO))
    assert job.attempt()
    return job


def test_two_automatic_stages_end_as_a_version_and_say_what_they_left(undisturbed: Job) -> None:
    job = undisturbed

    pruned = job.events("stage.pruned")
    version = job.version()
    assert [event["stage"] for event in pruned] == [0, 1]
    assert pruned[1]["data"] == summarize(version.layout).model_dump(mode="json")
    assert removed_share(TEACHER, version.layout, ["image", "text"]) > 0.45
    assert [event["data"]["student"] for event in job.events("stage.started")] == [None, None]
    told = [event["data"] for event in job.events("progress")]
    assert any("target_sparsity" in event["metrics"] for event in told)
    assert len(job.events("evaluation")) == 2 * (STEPS // 10 + 1)
    assert version.evaluation["find"].student["samples"] == 96
    assert load_folder(job.store.uri("models/shapes/1")).layout == version.layout


def test_automatic_stages_stand_anywhere_in_a_chain(tmp_path: Path, spec: Callable[..., JobSpec]) -> None:
    small = {"image": {"layers": 1, "width": 8, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
    narrow = {"image": {"width": 24}, "text": {"width": 24}}
    fresh = {**small, "embed_dim": 16, "image": {**small["image"], "patch_size": 16}}
    stages = [
        {"name": "narrow", "student": narrow, "train": {"steps": 2}},
        auto(0.15),
        {"name": "same", "student": {"text": {}}, "train": {"steps": 2}},
        {"name": "cut", "student": small, "train": {"steps": 2}},
        {"name": "fresh", "inherit": "none", "student": fresh, "train": {"steps": 2}},
    ]
    job = Job(tmp_path / "store", spec(*stages))

    assert job.attempt()

    started = {event["data"]["name"]: event["data"]["student"] for event in job.events("stage.started")}
    assert started["auto"] is None
    assert started["same"]["layout"] == job.events("stage.pruned")[0]["data"]["layout"]
    assert started["cut"]["layout"]["image"]["width"] == job.version().layout.image.width == 8


@pytest.mark.parametrize("killed_at", [10, PRUNE_STEP, STEPS, STEPS + 20])
def test_an_attempt_killed_anywhere_is_ended_by_the_next_with_the_same_student(
    tmp_path: Path, spec: Callable[..., JobSpec], undisturbed: Job, killed_at: int
) -> None:
    """Before, at and after the prune step of the first stage, and in the second."""
    broken = Job(tmp_path, spec(*TWO))

    class Killed(BaseException):
        pass

    def kill(self: Any, result: Any) -> None:
        if self._stage.index * STEPS + result.step == killed_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyclip_workers.progress.Progress.step", kill)
        with pytest.raises(Killed):
            broken.attempt()
    assert broken.attempt(2)

    wanted, found = undisturbed.weights(), broken.weights()
    assert broken.version().layout == undisturbed.version().layout
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_student_that_does_not_fit_what_was_left_fails_the_job_without_a_retry(
    tmp_path: Path, spec: Callable[..., JobSpec]
) -> None:
    wide = {"image": {"width": 32, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
    job = Job(tmp_path / "store", spec(auto(0.3), {"name": "wide", "student": wide, "train": {"steps": 2}}))

    assert not job.attempt()

    failure = job.events("attempt.failed")[0]
    assert failure["data"] == {"code": "impossible_student", "retryable": False}
    assert "image.width: 32 is more than the" in failure["message"]
