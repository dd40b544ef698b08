"""Reports of a worker group that waits for resources, on a real local Ray with 4 CPUs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import placement_group, remove_placement_group
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.groups import placement
from tinyclip_workers.training.groups.placement import report_waits

from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.training.test_run import two_stages

pytestmark = RAY_MARKS


@ray.remote
class Holder:
    """An actor that reserves CPUs, as a job of somebody else does."""

    def ready(self) -> bool:
        return True


@contextmanager
def reserved(cpus: int) -> Iterator[Callable[[], None]]:
    """Reserve CPUs until the block ends or the function that it gets is called."""
    holder: Any = Holder.options(num_cpus=cpus).remote()
    assert ray.get(holder.ready.remote(), timeout=60)
    while ray.available_resources().get("CPU", 0.0) > 4 - cpus:  # the cluster's view is a little later
        time.sleep(0.05)
    try:
        yield lambda: ray.kill(holder)
    finally:
        ray.kill(holder)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    for name, seconds in {"CHECK_S": 0.1, "REPORT_AFTER_S": 0.3, "REPEAT_S": 1.0}.items():
        monkeypatch.setattr(placement, name, seconds)
    return Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))


def reports(artifacts: Artifacts, *, waiting: int, placed: int = 0) -> list[dict[str, Any]]:
    """Wait for at least so many events of each type of worker groups and return all of both, in order."""
    end = time.monotonic() + 30
    while True:
        found = [event for event in artifacts.events(1) if event["type"].startswith("worker_group.")]
        types = [event["type"] for event in found]
        if types.count("worker_group.waiting") >= waiting and types.count("worker_group.placed") >= placed:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def watching(artifacts: Artifacts, workers: int, **each: float) -> Any:
    return report_waits(JobAttempt.open(str(artifacts.folder), artifacts.job, 1).events, 1, workers, each)


def test_a_group_without_room_is_reported_again_and_again_until_it_is_placed(artifacts: Artifacts) -> None:
    with reserved(3) as release, watching(artifacts, 2, CPU=1):
        group = placement_group([{"CPU": 1}] * 2)
        reports(artifacts, waiting=2)
        release()
        *waiting, placed = reports(artifacts, waiting=2, placed=1)
    remove_placement_group(group)

    assert {event["type"] for event in waiting} == {"worker_group.waiting"}
    assert waiting[0]["message"] == "waiting for 2 CPUs, 1 free"
    assert waiting[0]["data"] == {"needed": {"CPU": 2}, "free": {"CPU": 1}, "total": {"CPU": 4}}
    assert waiting[0]["stage"] == 1
    assert (placed["type"], placed["message"]) == ("worker_group.placed", "2 CPUs are reserved")


def test_a_group_that_is_larger_than_the_cluster_is_reported_with_its_size(artifacts: Artifacts) -> None:
    with watching(artifacts, 3, CPU=2, GPU=1):
        [event, *_] = reports(artifacts, waiting=1)

    assert event["message"] == "waiting for 6 CPUs and 3 GPUs, 4 and 0 free; the cluster has 4 and 0, so nodes have to join it"


def test_a_group_with_room_is_not_reported(artifacts: Artifacts) -> None:
    with watching(artifacts, 2, CPU=2):
        time.sleep(0.5)  # Ray Train starts its controller
        group = placement_group([{"CPU": 2}] * 2)
        assert group.wait(30)
        time.sleep(0.5)  # the group uses all CPUs itself
    remove_placement_group(group)

    assert not artifacts.store.list("jobs/job_1/attempts/1/events")


@pytest.mark.long
def test_an_attempt_waits_for_room_and_then_trains(artifacts: Artifacts) -> None:
    with reserved(4) as release:
        artifacts.when("worker_group.waiting", release)

        assert artifacts.attempt(1)

    types = artifacts.types(1)
    assert types.index("worker_group.waiting") < types.index("worker_group.placed") < types.index("stage.finished")
