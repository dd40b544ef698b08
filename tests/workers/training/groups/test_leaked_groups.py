"""Removal of placement groups that Ray has forgotten, on a real local Ray; its dashboard, which knows the jobs, is a fake."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from tinyclip_workers.training.groups import leaked_groups, placement
from tinyclip_workers.training.groups.leaked_groups import remove_leaked_groups

from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.training.groups.test_placement import artifacts, reports, watching

__all__ = ["artifacts"]

pytestmark = RAY_MARKS


@pytest.fixture
def group() -> Iterator[PlacementGroup]:
    """A placement group that holds three of the four CPUs."""
    made = placement_group([{"CPU": 3}])
    ray.get(made.ready(), timeout=30)
    yield made
    remove_placement_group(made)


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


def pretend(monkeypatch: pytest.MonkeyPatch, submission_id: str | None, status: str, *, own: str = "ffffffff") -> None:
    """Let the dashboard report one job, that of this process, and let this process be another job."""
    job = ray.get_runtime_context().get_job_id()

    def list_jobs(filters: list[tuple[str, str, str]]) -> list[Any]:
        return [SimpleNamespace(submission_id=submission_id, status=status)] if filters == [("job_id", "=", job)] else []

    monkeypatch.setattr(leaked_groups, "list_jobs", list_jobs)
    monkeypatch.setattr(leaked_groups, "own_job", lambda: own)


@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "SUCCEEDED"])
def test_a_group_of_an_attempt_that_has_ended_is_removed(
    status: str, group: PlacementGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "tc-job_1-a1", status)

    assert remove_leaked_groups() == 1
    assert state(group) == "REMOVED"
    assert remove_leaked_groups() == 0


@pytest.mark.parametrize(
    ("submission_id", "status"),
    [("tc-job_1-a1", "RUNNING"), ("tc-job_1-a1", "PENDING"), ("raysubmit_1", "FAILED"), (None, "FAILED")],
)
def test_groups_of_running_attempts_and_of_others_remain(
    submission_id: str | None, status: str, group: PlacementGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, submission_id, status)

    assert remove_leaked_groups() == 0
    assert state(group) == "CREATED"


def test_a_drivers_own_group_remains(group: PlacementGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "tc-job_1-a1", "FAILED", own=ray.get_runtime_context().get_job_id())

    assert remove_leaked_groups() == 0
    assert state(group) == "CREATED"


def test_an_attempt_that_waits_removes_the_group_in_its_way(
    group: PlacementGroup, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "tc-job_0-a1", "FAILED")
    monkeypatch.setattr(placement, "states_of_own_groups", set)  # those of this process are another job's here

    with watching(artifacts, 2, CPU=1):
        waiting, *_, placed = reports(artifacts, waiting=1, placed=1)

    assert waiting["message"] == "waiting for 2 CPUs, 1 free"
    assert placed["type"] == "worker_group.placed"
    assert state(group) == "REMOVED"
