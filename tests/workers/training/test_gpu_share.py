"""A worker with a share of a GPU: what Ray reserves for it, and the memory that it may take. Without a GPU."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip_workers.training import gpu_share
from tinyclip_workers.training.gpu_share import free_bytes, take_share
from tinyclip_workers.training.groups import group

GB = 10**9


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A GPU of 80 GB, of which 70 GB are free, and 2 GB belong to this process. Holds the share that PyTorch is told."""
    told: dict[str, float] = {}
    monkeypatch.setattr(gpu_share, "_share", 1.0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: told.update({str(device): share}))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GB)
    return told


def test_a_worker_may_take_its_share_of_the_memory(a_gpu: dict[str, float]) -> None:
    take_share(torch.device("cuda:0"), 0.25)

    assert a_gpu == {"cuda:0": 0.25}
    assert free_bytes(torch.device("cuda:0")) == 18 * GB


def test_a_whole_gpu_has_what_is_free(a_gpu: dict[str, float]) -> None:
    take_share(torch.device("cuda:0"), 1.0)

    assert free_bytes(torch.device("cuda:0")) == 70 * GB


def test_a_cpu_has_no_share(a_gpu: dict[str, float]) -> None:
    take_share(torch.device("cpu"), 0.25)

    assert a_gpu == {}


@pytest.mark.parametrize(("device", "reserved"), [("cuda", {"CPU": 2.0, "GPU": 0.25}), ("cpu", {"CPU": 2.0})])
def test_ray_reserves_the_share(monkeypatch: pytest.MonkeyPatch, device: str, reserved: dict[str, float]) -> None:
    resources = {"workers": 1, "device": device, "cpus_per_worker": 2, "gpus_per_worker": 0.25}
    spec = JobSpec.model_validate({
        "name": "small", "teacher": {"model": "local-dir:x"}, "data": {"train": {"shards": "x.tar"}}, "resources": resources,
        "stages": [{"name": "only", "inherit": "manual", "student": {"preset": "ViT-B-16"}, "train": {"steps": 1}}],
    })  # fmt: skip
    monkeypatch.setattr(group, "TorchTrainer", lambda worker, **settings: settings)
    monkeypatch.setattr(group, "_ray_storage", lambda run: {})
    run, stage = SimpleNamespace(spec=spec, document=SimpleNamespace(job="job_1", name="small"), attempt=1), SimpleNamespace()
    stage.index, stage.name, stage.to_json = 0, "only", dict

    settings: Any = group.make_group(cast(Any, run), "/artifacts", cast(Any, stage), 1)

    scaling = settings["scaling_config"]
    assert (scaling.num_workers, scaling.use_gpu, scaling.resources_per_worker) == (1, device == "cuda", reserved)
