"""A plan refuses a worker group that an embedded cluster, which never grows, can never place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.cluster import FIXED_CPUS
from tinyclip.schemas import JobSpec, Plan
from tinyclip_workers.plan.specs import make_plan

from tests.workers.plan_specs import spec, write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def plan(folder: Path, **resources: Any) -> Plan | list[Any]:
    return make_plan(JobSpec.model_validate(spec(folder) | {"resources": resources}))


@pytest.mark.parametrize(
    ("resources", "pointer", "message"),
    [
        ({"cpus_per_worker": 2.5}, "/resources/cpus_per_worker", "is more than the 2 CPUs of this machine"),
        ({"workers": 4, "cpus_per_worker": 1}, "/resources/workers", "needs 4 CPUs with 1 each"),
        ({"workers": {"min": 2, "max": 2}, "cpus_per_worker": 1.5}, "/resources/workers/min", "use 1 or fewer"),
        ({"device": "cuda"}, "/resources/device", "use resources.device: cpu"),
    ],
    ids=["one-worker", "all-workers", "fewest-of-a-range", "no-gpu"],
)
def test_what_this_machine_can_never_run_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], pointer: str, message: str
) -> None:
    monkeypatch.setenv(FIXED_CPUS, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    errors = plan(folder, **resources)

    assert isinstance(errors, list)
    assert [error.pointer for error in errors] == [pointer]
    assert message in errors[0].message


@pytest.mark.parametrize(
    "resources", [{"cpus_per_worker": 2}, {"workers": 2}, {"workers": {"min": 1, "max": 2}, "cpus_per_worker": 1.5}]
)
def test_what_fits_is_planned(folder: Path, monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any]) -> None:
    monkeypatch.setenv(FIXED_CPUS, "2")

    assert isinstance(plan(folder, **resources), Plan)


def test_numbers_of_workers_over_which_the_batch_does_not_divide_are_not_used(folder: Path) -> None:
    found = plan(folder, workers={"min": 2, "max": 1_000_000_000})

    assert isinstance(found, Plan)
    assert "/batch_size 4 divides over 2, 4 workers only, not over 1000000000: no other number is used" in found.warnings


def test_a_range_from_more_to_fewer_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="max 2 is less than min 3; exchange them"):
        plan(folder, workers={"min": 3, "max": 2})


@pytest.mark.parametrize("workers", [2, {"min": 1, "max": 2}])
def test_several_workers_do_not_share_a_gpu(folder: Path, workers: Any) -> None:
    with pytest.raises(ValueError, match=r"gpus_per_worker 0\.5 trains alone: give workers: 1, not 2"):
        plan(folder, workers=workers, gpus_per_worker=0.5)


def test_a_share_of_a_gpu_is_planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIXED_CPUS, "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    found = plan(folder, device="cuda", gpus_per_worker=0.25)

    assert isinstance(found, Plan)
    assert found.spec.resources.gpus_per_worker == 0.25


def test_a_cluster_that_nodes_may_join_takes_any_size(folder: Path) -> None:
    assert isinstance(plan(folder, workers=4, cpus_per_worker=64), Plan)
