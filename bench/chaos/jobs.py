"""The job of every case, and the checks of its outcome."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyclip import Client
from tinyclip.errors import CannotReachServer, ProblemError
from tinyclip.schemas import Event, Job, JobState
from tinyclip.specfile import load_spec

from bench.chaos.machine import wait_until
from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shapes_data import write_shards

SPEC = """\
teacher: {model: "local-dir:teacher"}
data: {train: {shards: "train/*.tar", holdout: 0.1}, shuffle: 50}
evaluation: {tasks: [{name: captions, kind: retrieval, shards: "val/*.tar"}]}
stages:
  - {name: thinner, student: {text: {layers: 1}}, train: {steps: 100}}
batch_size: 16
optimizer: {lr: 1e-3}
precision: fp32
checkpoint: {every_steps: 40, keep: 2}
"""
STEPS = 600
"""Steps of a stage, with fifteen checkpoints."""
SERVER_EVENTS = {"attempt.submitted", "attempt.lost", "attempt.unknown", "attempt.interrupted", "attempt.held_up"}
"""Events that the control plane adds, as it does those that begin with `job.`; drivers and workers report all others."""


def write_inputs(folder: Path) -> Path:
    """Write a teacher of 0.8 million parameters, 72 training pairs and the spec, and return the spec's file."""
    write_shards(folder / "train", shards=2, pairs=36)
    write_shards(folder / "val", shards=1, pairs=24, name="val")
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    (folder / "spec.yaml").write_text(SPEC)
    return folder / "spec.yaml"


def spec_of(file: Path, kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return a spec: `short` has one stage, `long` a second one from the first one's student, `pair` one stage on two workers."""
    spec = load_spec(file)
    first = {**spec["stages"][0], "train": {"steps": STEPS}}
    second = {"name": "half", "student": {"image": {"width": 2}}, "train": {"steps": 4 * STEPS}}
    resources = {"workers": 2 if kind == "pair" else 1}
    return {**spec, "name": name, "stages": [first, second] if kind == "long" else [first], "resources": resources, **changes}


class RunningJob:
    """A submitted job, observed through its artifacts, which no fault removes."""

    def __init__(self, client: Client, artifacts: Path, spec: dict[str, Any]) -> None:
        self.client, self.spec, self.artifacts = client, spec, artifacts
        self.id = client.jobs.submit(spec).id
        self.begun = time.monotonic()

    @property
    def folder(self) -> Path:
        return self.artifacts / "jobs" / self.id

    def retry(self) -> None:
        """Retry the failed job, and follow the new one from here on."""
        self.id = self.client.jobs.retry(self.id).id

    def newest_step(self, stage: int = 0, attempt: str = "*") -> int:
        """Return the step of the newest committed checkpoint; 0 before the first."""
        manifests = self.folder.glob(f"stages/{stage}-*/a{attempt}/step-*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in manifests), default=0)

    def steps_done(self) -> int:
        """Return the steps of both stages up to their newest checkpoints."""
        return self.newest_step(0) + self.newest_step(1)

    def has_ended(self) -> bool:
        """Return whether an attempt has written its end, even if the control plane has not read it yet."""
        attempts = sorted(int(path.name) for path in (self.folder / "attempts").glob("*"))
        lines = self.reported(attempts[-1]) if attempts else []
        return bool(lines) and lines[-1]["type"] in ("attempt.succeeded", "attempt.failed")

    def wait_for_step(self, step: int, stage: int = 0, attempt: str = "*") -> None:
        """Wait for a committed checkpoint at this step or a later one."""
        wait_until(lambda: self.newest_step(stage, attempt) >= step, f"step {step} of stage {stage} of {self.id}")

    def get_if_available(self) -> Job | None:
        """Return the job from the API; None while the API does not answer."""
        try:
            return self.client.jobs.get(self.id)
        except (CannotReachServer, ProblemError):
            return None

    def wait_for_state(self, *states: JobState) -> Job:
        what = f"{self.id} to be {' or '.join(states)}"
        wait_until(lambda: (shown := self.get_if_available()) is not None and shown.state in states, what, every=0.5)
        return self.client.jobs.get(self.id)

    def history(self) -> list[str]:
        """Return the types of its first 500 events."""
        return [event.type for event in self.client.jobs.events_page(self.id, page_size=500).items]

    def reported(self, attempt: int) -> list[dict[str, Any]]:
        """Return the events that an attempt's driver and workers have written, in order, without log lines."""
        segments = sorted((self.folder / "attempts" / str(attempt) / "events").glob("*.jsonl"))
        lines = (json.loads(line) for path in segments for line in path.read_text().splitlines())
        return [line for line in lines if line["type"] != "log"]


@dataclass
class Outcome:
    """The outcome of a job; the fields are keys of `chaos.json`."""

    state: str
    seconds: float
    attempts: int
    restarts: int
    """Times that a worker group continued from a checkpoint."""
    lost_steps: int
    """Steps that were trained again after their progress had been reported."""
    events: int
    student: str
    """SHA-256 of the weights' file in the store."""
    wrong: list[str] = field(default_factory=list)


def examine(job: RunningJob) -> Outcome:
    """Wait for the job's end, and check its history and its model."""
    shown = job.wait_for_state(*(state for state in JobState if state.terminal))
    seconds = time.monotonic() - job.begun
    events = list(job.client.jobs.events(job.id))
    lines = [line for attempt in range(1, shown.attempt + 1) for line in job.reported(attempt)]
    return Outcome(
        state=shown.state.value,
        seconds=seconds,
        attempts=shown.attempt,
        restarts=sum(line["type"] == "worker.restarted" for line in lines),
        lost_steps=_lost_steps(lines),
        events=len(events),
        student=_student(job, shown),
        wrong=[*_wrong_history(job, shown, events), *_wrong_models(job, shown)],
    )


def _lost_steps(lines: list[dict[str, Any]]) -> int:
    reached: dict[int, int] = {}
    lost = 0
    for line in lines:
        step = int(line["data"].get("step", 0))
        if line["type"] == "worker.restarted":
            lost += max(0, reached.get(line["stage"], 0) - step)
        if line["type"] in ("worker.restarted", "progress"):
            reached[line["stage"]] = step
    return lost


def _wrong_history(job: RunningJob, shown: Job, events: list[Event]) -> Iterator[str]:
    """Yield the faults: gaps, not exactly one final event, or lost or repeated lines (earlier attempts may be cut off)."""
    if [event.id for event in events] != list(range(1, len(events) + 1)):
        yield "the numbers of its events have gaps"
    ends = [event.type for event in events if event.type in {f"job.{state.value}" for state in JobState if state.terminal}]
    if ends != [f"job.{shown.state.value}"]:
        yield f"its history has the ends {ends}"
    for attempt in range(1, shown.attempt + 1):
        written = [(line["type"], line["stage"], line["data"]) for line in job.reported(attempt)]
        known = [
            (event.type, event.stage, event.data) for event in events
            if event.attempt == attempt and not event.type.startswith("job.") and event.type not in SERVER_EVENTS
        ]
        if known != (written if attempt == shown.attempt else written[: len(known)]):
            yield f"attempt {attempt}: {len(written)} events were written, {len(known)} are in the history"


def _wrong_models(job: RunningJob, shown: Job) -> Iterator[str]:
    if shown.state is not JobState.SUCCEEDED:
        return
    versions = [(one.job, one.version) for one in job.client.models.versions_page(job.spec["name"]).items]
    if len(versions) != 1 or versions[0][0] != shown.id:
        yield f"its model has the versions {versions}"


def _student(job: RunningJob, shown: Job) -> str:
    if shown.model is None:
        return ""
    weights = job.artifacts / "models" / shown.model.name / str(shown.model.version) / "open_clip_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()
