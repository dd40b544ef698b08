"""One stage on its worker group: of a fixed size, or an elastic one of as many workers as there is room for."""

import logging
import os
from functools import partial
from typing import Any

import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from tinyclip.artifacts.paths import attempt_ray_storage
from tinyclip.schemas.spec import WorkerRange

from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.checkpoints import furthest_step
from tinyclip_workers.training.groups.placement import report_waits
from tinyclip_workers.training.groups.room import largest_with_room, watch_for_room
from tinyclip_workers.training.groups.sizes import group_sizes
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.worker import train_stage_worker

log = logging.getLogger(__name__)

RESTARTS = 3
"""Restarts of a worker group inside one attempt; of an elastic one, in a row without a new checkpoint. After them the control
plane decides whether there is another attempt."""


def train_on_group(run: JobAttempt, artifacts: str, stage: Stage, events: EventWriter) -> None:
    """Train a stage until it is finished or stopped. Raises what Ray Train raises if the group fails too often."""
    workers = run.spec.resources.workers
    if isinstance(workers, WorkerRange):
        _train_elastic(run, artifacts, stage, group_sizes(workers, stage.batch_size), events)
        return
    with report_waits(run.events, stage.index, workers, _resources_of_worker(run)):
        make_group(run, artifacts, stage, workers).fit()


def _train_elastic(run: JobAttempt, artifacts: str, stage: Stage, sizes: list[int], events: EventWriter) -> None:
    """Train on one group after another; each continues from the checkpoint of the one before, with the room there is by then.

    A group that can grow writes a checkpoint and stops; one that has lost a worker ends, and what it trained since its last
    checkpoint is trained again.
    """
    each = _resources_of_worker(run)
    number, failures, before = 0, 0, 0
    while True:
        number, size = number + 1, largest_with_room(sizes, each)
        name = f"{stage.index}-{number}"
        data = {"workers": size, "before": before, "sizes": sizes}
        events.send("worker_group.sized", stage=stage.index, message=_describe_size(size, before), data=data)
        reached = furthest_step(run.store, run.stage_folder(stage.index))
        grow = partial(_let_grow, run, name)
        try:
            with report_waits(run.events, stage.index, size, each), watch_for_room(sizes, size, each, grow):
                make_group(run, artifacts, stage, size, group=name, waits=size == min(sizes)).fit()
        except Exception as error:
            advanced = furthest_step(run.store, run.stage_folder(stage.index)) > reached
            failures = 0 if advanced else failures + 1
            if _is_over(run, stage):
                return
            if failures > RESTARTS:
                raise
            log.warning("the group of %d workers ended: %s", size, describe_failure(error))
        else:
            if _is_over(run, stage) or not run.is_group_stopped(name):
                return
        before = size


def _let_grow(run: JobAttempt, group: str, size: int) -> None:
    log.info("there is room for %d workers: the group writes a checkpoint and stops", size)
    run.stop_group(group)


def _is_over(run: JobAttempt, stage: Stage) -> bool:
    """Return whether no further group is to continue a stage: it is finished, stopped or superseded."""
    return bool(run.finished_stage(stage.index) or run.outcome()) or run.control().read() is Command.FENCED


def describe_failure(error: Exception) -> str:
    """Describe an error in a line; of the errors of Ray Train's workers, which may be whole tracebacks, the first worker's."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        lines = str(failure).strip().splitlines() or [""]
        line = lines[-1] if lines[0].startswith("Traceback") else f"{type(failure).__name__}: {lines[0]}"
        return f"worker {rank}: {line}"
    return f"{type(error).__name__}: {error}"


def _describe_size(size: int, before: int) -> str:
    workers = f"{size} worker{'s' if size > 1 else ''}"
    if not before:
        return f"training on {workers}"
    return f"continuing on {workers}" if size == before else f"continuing on {workers} instead of {before}"


def make_group(
    run: JobAttempt, artifacts: str, stage: Stage, workers: int, *, group: str = "", waits: bool = True
) -> TorchTrainer:
    """Make the worker group of a stage, which `waits` for room, or fails if there is none after a minute.

    `group`: name of an elastic one; Ray restarts the workers of others only.
    """
    each = _resources_of_worker(run)
    cuda = "GPU" in each
    config: dict[str, Any] = {
        "artifacts": artifacts,
        "job": run.document.job,
        "attempt": run.attempt,
        "stage": stage.to_json(),
        "group": group,
    }
    return TorchTrainer(
        train_stage_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda, resources_per_worker=each),
        run_config=RunConfig(
            name=f"{run.document.name}-{stage.index}-{stage.name}-a{run.attempt}" + (f"-group-{group}" if group else ""),
            **_ray_storage(run),
            failure_config=FailureConfig(
                max_failures=0 if group else RESTARTS,
                controller_failure_limit=-1 if waits else 0,  # type: ignore[call-arg]  # Ray's annotation lags
            ),
        ),
    )


def cluster_size() -> dict[str, float]:
    """Return the CPUs and GPUs of the cluster."""
    resources: dict[str, float] = ray.cluster_resources()
    return {kind: resources[kind] for kind in ("CPU", "GPU") if kind in resources}


def _resources_of_worker(run: JobAttempt) -> dict[str, float]:
    resources = run.spec.resources
    return {"CPU": resources.cpus_per_worker, **({"GPU": resources.gpus_per_worker} if _use_cuda(resources.device) else {})}


def _use_cuda(device: str) -> bool:
    return device == "cuda" or (device == "auto" and cluster_size().get("GPU", 0) > 0)


def _ray_storage(run: JobAttempt) -> dict[str, Any]:
    """Return where Ray Train keeps its state: beside the attempt's events, through the same filesystem."""
    fs, base = run.store.filesystem
    folder = f"{base}/{attempt_ray_storage(run.document.job, run.attempt)}"
    if run.store.is_local:
        return {"storage_path": os.path.abspath(folder)}
    return {"storage_path": folder, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}
