"""Attempts at jobs without a cluster: driver and worker in one process, which may be killed; everything else is real."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.paths import attempt_events, job_spec
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec, ModelVersion
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training import calibration, worker
from tinyclip_workers.training import driver as driver
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.observation.reporting import StageProgress
from tinyclip_workers.training.stage import Stage

from tests.workers.auto_stages import TEACHER, auto, spec_of
from tests.workers.models import write_folder
from tests.workers.processes import PRELOADED
from tests.workers.shapes_data import write_shards

PRUNE_STEP, STEPS = 12, 22
TWO = tuple(
    {**stage, "train": {"steps": STEPS}}
    for stage in (
        auto(0.3, "more", prune_step=PRUNE_STEP),
        auto(0.5, "less", start_sparsity=0.3, prune_step=PRUNE_STEP),
    )
)
"""Two automatic stages, long enough for checkpoints before and after their prune steps."""
CALIBRATION_PAIRS = 64
"""Fewer than the shards have; decoding the pairs of real calibrations would take most of a job's time."""


@contextmanager
def no_cluster() -> Iterator[pytest.MonkeyPatch]:
    """Let the driver call a single worker itself, which cuts students by few calibration pairs."""

    def train_alone(run: JobAttempt, artifacts: str, stage: Stage, events: EventWriter) -> None:
        config = {"artifacts": artifacts, "job": run.document.job, "attempt": run.attempt, "stage": stage.to_json(), "group": ""}
        worker.train_stage_worker(json.loads(json.dumps(config)))

    gauge = SimpleNamespace(set=lambda _: None, set_default_tags=lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "train_on_group", train_alone)
        patch.setattr(driver, "cluster_size", dict)
        patch.setattr(calibration, "draw_calibration", partial(calibration.draw_calibration, pairs=CALIBRATION_PAIRS))
        patch.setattr("ray.is_initialized", lambda: True)
        patch.setattr("ray.train.report", lambda metrics: None)
        patch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
        patch.setattr("tinyclip_workers.training.observation.reporting.Gauge", lambda *_, **__: gauge)
        yield patch


class Job:
    def __init__(self, folder: Path | str, spec: JobSpec) -> None:
        self.root, self.store = str(folder), ArtifactsStore(str(folder))
        document = JobDocument(job="job_1", name=spec.name, spec=spec, model_name=spec.name, model_version=1)
        self.store.write_bytes(job_spec("job_1"), document.model_dump_json().encode())

    def attempt(self, number: int = 1) -> bool:
        return driver.run_attempt(JobAttempt.open(self.root, "job_1", number), self.root)

    def events(self, type: str, attempt: int = 1) -> list[dict[str, Any]]:
        folder = attempt_events("job_1", attempt)
        segments = [self.store.read_bytes(f"{folder}/{name}").decode() for name in self.store.list(folder)]
        lines = [json.loads(line) for segment in segments for line in segment.splitlines()]
        return [event for event in lines if event["type"] == type]

    def version(self) -> ModelVersion:
        return ModelVersion.model_validate_json(self.store.read_bytes("models/shapes/1/model.json"))

    def assert_same_student(self, wanted: "Job") -> None:
        """Compare layouts and weights, bit for bit."""
        own, other = self.weights(), wanted.weights()
        assert self.version().layout == wanted.version().layout
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in other.items())

    def weights(self) -> dict[str, torch.Tensor]:
        return load_folder(self.store.uri("models/shapes/1")).model.state_dict()


def specs_in(folder: Path) -> Callable[..., JobSpec]:
    """Return a function from stages to a spec with a teacher, and checkpoints and evaluations at every tenth step."""
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


def kill_attempt(root: str, point: str, place: str) -> int:
    """Run a first attempt at the job in `root` in a process that is killed at a point; returns its exit code.

    Points: `step` (a stage's step is done), `folded` (a stage's masks are folded in memory), `written` (a file of the store is
    complete but not yet renamed), `next` (a stage is about to start).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_attempt, args=(root, point, place))
    process.start()
    process.join(timeout=240)
    assert process.exitcode is not None, "the attempt neither ended nor was killed"
    return process.exitcode


def _attempt(root: str, point: str, place: str) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for the loader, as in a worker of Ray
    with no_cluster() as patch:
        _die_at(point, place, patch)
        driver.run_attempt(JobAttempt.open(root, "job_1", 1), root)


def _die_at(point: str, place: str, patch: pytest.MonkeyPatch) -> None:
    def dying(place_of: Callable[..., str], after: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = after(*args, **kwargs) if after else None
            if place_of(*args) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    replace, fold, resolve = os.replace, StageLearner._end_search, driver.resolve_stage

    def late(aside: Any, target: Any) -> None:
        if str(target).endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(aside, target)

    if point == "step":
        patch.setattr(StageProgress, "step", dying(lambda self, result: f"{self._stage.index}/{result.step}"))
    elif point == "folded":
        patch.setattr(StageLearner, "_end_search", dying(lambda self, folded: f"{self.stage.index}", fold))
    elif point == "written":
        patch.setattr(os, "replace", late)
    else:
        patch.setattr(driver, "resolve_stage", dying(lambda spec, index, *_: f"{index}", resolve))
