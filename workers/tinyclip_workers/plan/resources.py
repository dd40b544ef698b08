"""What a job's worker group needs: its device, and whether an embedded cluster, which never grows, has enough for it."""

import os
from typing import Literal

import torch
from tinyclip.cluster import FIXED_CPUS
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import WorkerRange

from tinyclip_workers.plan.diagnostics import Diagnostics


def resolve_device(spec: JobSpec, diagnostics: Diagnostics) -> Literal["cpu", "cuda"]:
    """Resolve `auto` to the device of this machine, and check that a worker group of that size can ever be placed."""
    here: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    device = here if spec.resources.device == "auto" else spec.resources.device
    if device == "cpu" and spec.precision == "fp16":
        diagnostics.error("/precision", "fp16", "does not train on CPUs; use fp32 or bf16, or resources.device: cuda")
    if fixed := os.environ.get(FIXED_CPUS):
        _check_size(spec, int(fixed), torch.cuda.device_count() if device == "cuda" else None, diagnostics)
    elif device == "cuda" and here == "cpu":
        diagnostics.warn("resources.device is cuda, which this machine does not have: the job waits for a node with a GPU")
    return device


def _check_size(spec: JobSpec, cpus: int, gpus: int | None, diagnostics: Diagnostics) -> None:
    """Refuse what this machine, which is the whole cluster, can never run. `gpus`: None for training on CPUs."""
    resources = spec.resources
    workers, pointer = resources.workers, "/resources/workers"
    if isinstance(workers, WorkerRange):
        workers, pointer = workers.min, "/resources/workers/min"
    if gpus == 0:
        message = "has no device on this machine, which is the whole cluster; use resources.device: cpu"
        diagnostics.error("/resources/device", resources.device, message)
    elif gpus is not None and workers > gpus:
        diagnostics.error(pointer, workers, f"needs a GPU for each worker, and this machine has {gpus}; use {gpus} or fewer")
    if resources.cpus_per_worker > cpus:
        message = f"is more than the {cpus} CPUs of this machine, which is the whole cluster; use {cpus} or fewer"
        diagnostics.error("/resources/cpus_per_worker", resources.cpus_per_worker, message)
    elif workers * resources.cpus_per_worker > cpus:
        most = int(cpus / resources.cpus_per_worker)
        message = (
            f"needs {workers * resources.cpus_per_worker:g} CPUs with {resources.cpus_per_worker:g} each, and this machine, "
            f"which is the whole cluster, has {cpus}; use {most} or fewer, or lower resources.cpus_per_worker"
        )
        diagnostics.error(pointer, workers, message)
