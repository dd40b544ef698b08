"""The checks of `make chaos` on the end of a job detect each fault."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinyclip.schemas import JobState

from bench.chaos.__main__ import differences
from bench.chaos.cases import CASES
from bench.chaos.jobs import RunningJob, examine

LINES = [
    {"type": "attempt.started", "stage": None, "data": {}},
    {"type": "log", "stage": 0, "data": {}},
    {"type": "progress", "stage": 0, "data": {"step": 70}},
    {"type": "worker.restarted", "stage": 0, "data": {"step": 40}},
    {"type": "progress", "stage": 0, "data": {"step": 90}},
    {"type": "attempt.succeeded", "stage": None, "data": {}},
]


class FakeControlPlane:
    """A control plane with one succeeded job of one attempt, which tests modify."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        reported = [{**line, "attempt": 1} for line in LINES if line["type"] != "log"]
        self.events: list[dict[str, Any]] = [
            {"type": "job.created", "attempt": None, "stage": None, "data": {}},
            {"type": "attempt.submitted", "attempt": 1, "stage": None, "data": {}},
            *reported,
            {"type": "job.succeeded", "attempt": 1, "stage": None, "data": {}},
        ]
        self.numbers = list(range(1, len(self.events) + 1))
        self.versions = [SimpleNamespace(job="job_1", version=1)]
        segments = artifacts / "jobs/job_1/attempts/1/events"
        segments.mkdir(parents=True)
        for number, part in enumerate((LINES[:3], LINES[3:]), start=1):
            (segments / f"{number:08d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part))
        weights = artifacts / "models/m/1/open_clip_model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")

    def job(self) -> RunningJob:
        seen = SimpleNamespace(id="job_1", state=JobState.SUCCEEDED, attempt=1, model=SimpleNamespace(name="m", version=1))
        jobs = SimpleNamespace(
            submit=lambda spec: seen, get=lambda job_id: seen,
            events=lambda job_id: [SimpleNamespace(id=n, **e) for n, e in zip(self.numbers, self.events, strict=True)],
        )
        models = SimpleNamespace(versions_page=lambda name: SimpleNamespace(items=self.versions))
        client: Any = SimpleNamespace(jobs=jobs, models=models)
        return RunningJob(client, self.artifacts, {"name": "m"})


@pytest.fixture
def served(tmp_path: Path) -> FakeControlPlane:
    return FakeControlPlane(tmp_path)


def test_a_correct_outcome_is_accepted(served: FakeControlPlane) -> None:
    ended = examine(served.job())

    assert ended.wrong == []
    assert (ended.state, ended.attempts, ended.restarts, ended.lost_steps) == ("succeeded", 1, 1, 30)
    assert ended.student == hashlib.sha256(b"weights").hexdigest()


def test_a_gap_is_detected(served: FakeControlPlane) -> None:
    served.numbers[-1] += 1

    assert examine(served.job()).wrong == ["the numbers of its events have gaps"]


@pytest.mark.parametrize("change", [lambda events: events.pop(3), lambda events: events.insert(3, dict(events[3]))])
def test_a_lost_or_repeated_line_is_detected(served: FakeControlPlane, change: Any) -> None:
    change(served.events)
    served.numbers = list(range(1, len(served.events) + 1))

    (wrong,) = examine(served.job()).wrong

    assert wrong == f"attempt 1: 5 events were written, {len(served.events) - 3} are in the history"


def test_two_final_events_are_detected(served: FakeControlPlane) -> None:
    served.events[-2:-2] = [{"type": "job.failed", "attempt": 1, "stage": None, "data": {}}]
    served.numbers = list(range(1, len(served.events) + 1))

    assert examine(served.job()).wrong == ["its history has the ends ['job.failed', 'job.succeeded']"]


@pytest.mark.parametrize("versions", [[], [("job_1", 1), ("job_1", 2)], [("job_2", 1)]])
def test_another_number_of_versions_is_detected(served: FakeControlPlane, versions: list[tuple[str, int]]) -> None:
    served.versions = [SimpleNamespace(job=job, version=version) for job, version in versions]

    assert examine(served.job()).wrong == [f"its model has the versions {versions}"]


def test_another_student_and_too_many_attempts_are_detected(served: FakeControlPlane) -> None:
    worker = next(case for case in CASES if case.name == "worker")
    undisturbed = examine(served.job())
    (served.artifacts / "models/m/1/open_clip_model.safetensors").write_bytes(b"other weights")
    ended = examine(served.job())
    ended.attempts = 2

    assert list(differences(worker, undisturbed, undisturbed)) == []
    assert [line.split(" ", 2)[:2] for line in differences(worker, ended, undisturbed)] == [["its", "student"], ["it", "took"]]
