"""The checks of `make chaos` on the end of a job detect each fault, and its moments and results are kept."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tinyclip.schemas import JobState

from bench.chaos.__main__ import differences
from bench.chaos.case import Case, CaseContext
from bench.chaos.cases import CASES
from bench.chaos.files import LocalFiles, S3Files
from bench.chaos.jobs import RunningJob
from bench.chaos.machine import time_limit
from bench.chaos.outcome import Fault, Outcome, examine, measure_recovery
from bench.chaos.report import BEGIN, END, Report, Row
from tests.s3 import bucket_files, s3_server

LINES = [
    {"type": "attempt.started", "stage": None, "data": {}},
    {"type": "log", "stage": 0, "data": {}},
    {"type": "progress", "stage": 0, "data": {"step": 70}},
    {"type": "worker.restarted", "stage": 0, "data": {"step": 40}},
    {"type": "progress", "stage": 0, "data": {"step": 90}},
    {"type": "attempt.succeeded", "stage": None, "data": {}},
]
SPEC = {"name": "m", "stages": [{"train": {"steps": 600}}]}


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
        self.state = JobState.SUCCEEDED
        attempt = artifacts / "jobs/job_1/attempts/1"
        (attempt / "events").mkdir(parents=True)
        (attempt / "driver.json").write_text("{}")
        for number, part in enumerate((LINES[:3], LINES[3:]), start=1):
            (attempt / f"events/{number:08d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part))
        weights = artifacts / "models/m/1/open_clip_model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")

    def job(self) -> RunningJob:
        return RunningJob(self.client(), LocalFiles(self.artifacts), SPEC)

    def client(self) -> Any:
        model = SimpleNamespace(name="m", version=1)
        jobs = SimpleNamespace(
            submit=lambda spec: SimpleNamespace(id="job_1"),
            get=lambda job_id: SimpleNamespace(id="job_1", state=self.state, attempt=1, model=model, error=None),
            events=lambda job_id: [SimpleNamespace(id=n, **e) for n, e in zip(self.numbers, self.events, strict=True)],
        )
        return SimpleNamespace(jobs=jobs, models=SimpleNamespace(versions_page=lambda name: SimpleNamespace(items=self.versions)))

    def write_checkpoint(self, stage: str, attempt: int, step: int) -> None:
        manifest = self.artifacts / f"jobs/job_1/stages/{stage}/a{attempt}/step-{step}/manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")


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


def test_an_event_that_is_in_two_segments_is_detected(served: FakeControlPlane) -> None:
    segments = served.artifacts / "jobs/job_1/attempts/1/events"
    (segments / "00000003.jsonl").write_text(json.dumps(LINES[-1]) + "\n")
    served.events.insert(-1, dict(served.events[-2]))
    served.numbers = list(range(1, len(served.events) + 1))

    assert examine(served.job()).wrong == ["attempt 1: its segments repeat 1 events"]


def test_two_final_events_are_detected(served: FakeControlPlane) -> None:
    served.events[-2:-2] = [{"type": "job.failed", "attempt": 1, "stage": None, "data": {}}]
    served.numbers = list(range(1, len(served.events) + 1))

    assert examine(served.job()).wrong == ["its history has the ends ['job.failed', 'job.succeeded']"]


@pytest.mark.parametrize("versions", [[], [("job_1", 1), ("job_1", 2)], [("job_2", 1)]])
def test_another_number_of_versions_is_detected(served: FakeControlPlane, versions: list[tuple[str, int]]) -> None:
    served.versions = [SimpleNamespace(job=job, version=version) for job, version in versions]

    assert examine(served.job()).wrong == [f"its model has the versions {versions}"]


def test_another_student_and_a_wrong_number_of_attempts_are_detected(served: FakeControlPlane) -> None:
    cases = {case.name: case for case in CASES if case.profiles == ("PostgreSQL",)}
    driver, worker = cases["driver"], cases["worker"]
    undisturbed = examine(served.job())
    (served.artifacts / "models/m/1/open_clip_model.safetensors").write_bytes(b"other weights")
    ended = examine(served.job())
    ended.attempts = 9

    assert list(differences(worker, undisturbed, undisturbed, 7)) == []
    assert list(differences(driver, undisturbed, undisturbed, 7)) == ["it took 1 attempts, not 8"]
    assert [line.split(" ", 2)[:2] for line in differences(worker, ended, undisturbed, 7)] == [["its", "student"], ["it", "took"]]


def test_progress_is_read_from_the_newest_checkpoints_of_all_stages(served: FakeControlPlane) -> None:
    job = served.job()
    for stage, attempt, step in (("0-thinner", 1, 560), ("0-thinner", 1, 600), ("1-half", 1, 40), ("1-half", 2, 80)):
        served.write_checkpoint(stage, attempt, step)

    assert (job.steps_done(), job.steps_done(1), job.steps_done(2), job.steps_done(3)) == (680, 640, 80, 0)
    assert (job.newest_attempt(), job.has_ended()) == (1, True)


def test_files_on_s3_are_found_like_those_on_a_disk() -> None:
    with s3_server() as environment:
        files = S3Files(environment)
        bucket_files(environment).pipe_file("tinyclip/artifacts/jobs/job_1/attempts/2/driver.json", b"{}")

        assert files.names("jobs/job_1/attempts/*/driver.json") == ["jobs/job_1/attempts/2/driver.json"]
        assert files.read("jobs/job_1/attempts/2/driver.json") == b"{}"
        assert files.names("jobs/job_2/attempts/*/driver.json") == []


def test_recovery_ends_with_the_next_advance_of_the_job() -> None:
    lines = [
        {"type": type, "attempt": attempt, "stage": 0, "data": {"step": step}, "time": f"2026-01-01T00:00:{second:02d}Z"}
        for type, attempt, step, second in (
            ("checkpoint", 1, 40, 10), ("checkpoint", 1, 80, 20), ("progress", 2, 70, 25), ("checkpoint", 2, 80, 30),
            ("checkpoint", 2, 120, 40), ("stage.finished", 2, 0, 50),
        )
    ]  # fmt: skip
    midnight = 1767225600.0
    faults = [Fault(seed, "job_1", midnight + second, 0, 1) for seed, second in enumerate((5, 21, 41, 51))]
    superseded = Fault(4, "job_1", midnight + 11, 0, 1, new_attempt=True)

    measure_recovery([*faults, superseded], lines)

    assert [fault.recovery for fault in faults] == [5, 19, 9, None]
    assert superseded.recovery == 19, "a checkpoint of the superseded attempt is not a recovery"


def test_a_seed_chooses_the_same_moment_for_any_number_of_seeds(served: FakeControlPlane) -> None:
    few, many = _context(served, 2), _context(served, 20)
    jobs_of_four = _context(served, 10, jobs=4)

    assert few.random(1).random() == many.random(1).random() != many.random(2).random()
    assert jobs_of_four.shares() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert _context(served, 20, faults=3).seeds == [0, 1, 2]


def test_moments_are_spread_over_the_steps_of_a_job_and_end_with_it(
    served: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, slept, waited = _context(served, 4), [], []
    job = context.submit()
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(job, "wait_for_steps", waited.append)
    monkeypatch.setattr(job, "has_ended", lambda: len(waited) == 3)

    with pytest.raises(RuntimeError, match="ended before fault 4 of 4"):
        list(context.moments(job, context.seeds))

    assert len(slept) == 1
    assert waited == sorted(waited)
    assert 0.85 * 150 <= waited[0] <= 0.85 * 300
    assert waited[-1] <= 0.85 * 600


def test_waiting_for_a_job_that_fails_ends(served: FakeControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    served.state = JobState.FAILED
    monkeypatch.setattr("bench.chaos.jobs.CHECK_SECONDS", 0.0)

    with pytest.raises(RuntimeError, match="job_1 failed before step 40"):
        served.job().wait_for_steps(40)


def test_a_case_has_a_time_limit() -> None:
    with pytest.raises(TimeoutError, match=r"a case took more than 0\.05 s"), time_limit(0.05, "a case"):
        time.sleep(5)


def test_results_of_all_seeds_are_kept_and_a_failed_check_passes_none(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    outcome = Outcome("job_1", "succeeded", 60.0, 3, 2, 7, 50, "ab")
    faults = [Fault(seed, "job_1", 1.0, 40, 1, recovery=10.0 + seed) for seed in range(2)]
    good = Row(faults=faults, wanted=2, outcomes=[outcome, replace(outcome, seconds=90.0)], undisturbed_seconds=47.0)
    bad = Row(faults=faults, wanted=2, outcomes=[outcome], wrong=["its history has gaps"])
    by_name = {case.name: case for case in CASES}
    report = Report(0, 2, 30.0, keep=False, path=tmp_path / "chaos.json", page=page)

    report.add(by_name["driver"], "SQLite", good)
    report.add(by_name["worker"], "SQLite", bad)
    report.add(by_name["node"], "two nodes", Row(left_out=True, remark="needs root"))
    report.write()

    rows = [line for line in page.read_text().splitlines() if line.startswith("| kill -9 of")]
    assert rows[0].startswith("| kill -9 of the driver | SQLite | 2 of 2 | 2 | 75 / 90 (47) | 10 / 11 | 6 | 4 | 14 | 100 |")
    assert rows[1].startswith("| kill -9 of the training worker | SQLite | 0 of 2 | 1 |")
    assert rows[1].endswith("| **its history has gaps** |")
    assert rows[2].startswith("| kill -9 of a node; another one joins | two nodes | left out |")
    assert page.read_text().split(BEGIN)[0] == "before\n"
    assert page.read_text().split(END)[1] == "\nafter\n"
    assert json.loads((tmp_path / "chaos.json").read_text())["rows"][0]["faults"] == [asdict(fault) for fault in faults]
    kept = Report(0, 2, 30.0, keep=True, path=tmp_path / "chaos.json", page=None)
    assert (kept.has("driver", "SQLite"), kept.has("worker", "SQLite"), kept.has("node", "two nodes")) == (True, False, False)
    assert report.failed


def test_two_processes_add_to_the_same_results(tmp_path: Path) -> None:
    by_name, path = {case.name: case for case in CASES}, tmp_path / "chaos.json"
    first = Report(0, 2, 30.0, keep=False, path=path, page=None)
    first.add(by_name["driver"], "SQLite", Row())
    second = Report(0, 2, 30.0, keep=True, path=path, page=None)

    second.add(by_name["driver"], "PostgreSQL", Row())
    first.keep_undisturbed("short", Outcome("job_1", "succeeded", 60.0, 1, 0, 0, 50, "ab"))
    first.add(by_name["worker"], "SQLite", Row())

    rows = {(row["case"], row["profile"]) for row in json.loads(path.read_text())["rows"]}
    assert rows == {("driver", "SQLite"), ("driver", "PostgreSQL"), ("worker", "SQLite")}


def _context(served: FakeControlPlane, seeds: int, **case: Any) -> CaseContext:
    plane, files = SimpleNamespace(is_ready=lambda: True), LocalFiles(served.artifacts)
    profile: Any = SimpleNamespace(name="SQLite", client=served.client(), files=files, plane=plane)
    undisturbed = Outcome("job_0", "succeeded", 60.0, 1, 0, 0, 50, "ab")
    case_of = Case("driver", "", lambda context: "", **case)
    return CaseContext(case_of, profile, lambda name: {**SPEC, "name": name}, undisturbed, seeds)
