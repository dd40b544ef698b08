"""The job that every case disturbs, and what must be true of it at its end."""

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

from bench.chaos.machine import until
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
"""Of one stage; a checkpoint is due fifteen times in it."""
OF_THE_SERVER = {"attempt.submitted", "attempt.lost", "attempt.unknown", "attempt.interrupted", "attempt.held_up"}
"""Events that the control plane adds; with those that begin with `job.`, all others were told by a driver or a worker."""


def write_world(folder: Path) -> Path:
    """A teacher of 0.8 million parameters, 72 coloured shapes to learn from, and the spec's file, which is returned."""
    write_shards(folder / "train", shards=2, pairs=36)
    write_shards(folder / "val", shards=1, pairs=24, name="val")
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    (folder / "spec.yaml").write_text(SPEC)
    return folder / "spec.yaml"


def spec_of(file: Path, kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """`short` has one stage, `long` a second one of the first one's student, `pair` one stage on two workers."""
    spec = load_spec(file)
    first = {**spec["stages"][0], "train": {"steps": STEPS}}
    second = {"name": "half", "student": {"image": {"width": 2}}, "train": {"steps": 4 * STEPS}}
    resources = {"workers": 2 if kind == "pair" else 1}
    return {**spec, "name": name, "stages": [first, second] if kind == "long" else [first], "resources": resources, **changes}


class RunningJob:
    """A submitted job, seen through its artifacts: they are there whoever has died."""

    def __init__(self, client: Client, artifacts: Path, spec: dict[str, Any]) -> None:
        self.client, self.spec, self.artifacts = client, spec, artifacts
        self.id = client.jobs.submit(spec).id
        self.begun = time.monotonic()

    @property
    def folder(self) -> Path:
        return self.artifacts / "jobs" / self.id

    def retry(self) -> None:
        """From here on this is the job that goes on where the failed one stopped."""
        self.id = self.client.jobs.retry(self.id).id

    def newest_step(self, stage: int = 0, attempt: str = "*") -> int:
        """Of the committed checkpoints; 0 before the first."""
        manifests = self.folder.glob(f"stages/{stage}-*/a{attempt}/step-*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in manifests), default=0)

    def steps_done(self) -> int:
        """Over both stages, as far as checkpoints tell."""
        return self.newest_step(0) + self.newest_step(1)

    def is_over(self) -> bool:
        """Whether an attempt has told the job's end, heard or not."""
        attempts = sorted(int(path.name) for path in (self.folder / "attempts").glob("*"))
        told = self.told(attempts[-1]) if attempts else []
        return bool(told) and told[-1]["type"] in ("attempt.succeeded", "attempt.failed")

    def wait_for_step(self, step: int, stage: int = 0, attempt: str = "*") -> None:
        """Until a checkpoint of it or of a later one counts."""
        until(lambda: self.newest_step(stage, attempt) >= step, f"step {step} of stage {stage} of {self.id}")

    def look(self) -> Job | None:
        """The job as the API shows it; None while the API does not answer."""
        try:
            return self.client.jobs.get(self.id)
        except (CannotReachServer, ProblemError):
            return None

    def wait_for_state(self, *states: JobState) -> Job:
        what = f"{self.id} to be {' or '.join(states)}"
        until(lambda: (seen := self.look()) is not None and seen.state in states, what, every=0.5)
        return self.client.jobs.get(self.id)

    def history(self) -> list[str]:
        """The types of its first events."""
        return [event.type for event in self.client.jobs.events_page(self.id, page_size=500).items]

    def told(self, attempt: int) -> list[dict[str, Any]]:
        """What an attempt's driver and workers have written, log lines left out, in their order."""
        segments = sorted((self.folder / "attempts" / str(attempt) / "events").glob("*.jsonl"))
        lines = (json.loads(line) for path in segments for line in path.read_text().splitlines())
        return [line for line in lines if line["type"] != "log"]


@dataclass
class Ended:
    """What a case came to."""

    state: str
    seconds: float
    attempts: int
    restarts: int
    """Times that a worker group went on from a checkpoint."""
    lost_steps: int
    """Steps that were trained again, as far as progress was told."""
    events: int
    student: str
    """sha256 of the weights' file as it lies in the store."""
    wrong: list[str] = field(default_factory=list)


def examine(job: RunningJob) -> Ended:
    """Wait for its end, and look at all that must be so."""
    seen = job.wait_for_state(*(state for state in JobState if state.terminal))
    seconds = time.monotonic() - job.begun
    events = list(job.client.jobs.events(job.id))
    told = [line for attempt in range(1, seen.attempt + 1) for line in job.told(attempt)]
    return Ended(
        state=seen.state.value,
        seconds=seconds,
        attempts=seen.attempt,
        restarts=sum(line["type"] == "worker.restarted" for line in told),
        lost_steps=_lost_steps(told),
        events=len(events),
        student=_student(job, seen),
        wrong=[*_wrong_history(job, seen, events), *_wrong_models(job, seen)],
    )


def _lost_steps(told: list[dict[str, Any]]) -> int:
    reached: dict[int, int] = {}
    lost = 0
    for line in told:
        step = int(line["data"].get("step", 0))
        if line["type"] == "worker.restarted":
            lost += max(0, reached.get(line["stage"], 0) - step)
        if line["type"] in ("worker.restarted", "progress"):
            reached[line["stage"]] = step
    return lost


def _wrong_history(job: RunningJob, seen: Job, events: list[Event]) -> Iterator[str]:
    """Numbers without a gap, one end, and each line of each attempt once: all of the last attempt, the first ones of others."""
    if [event.id for event in events] != list(range(1, len(events) + 1)):
        yield "the numbers of its events have gaps"
    ends = [event.type for event in events if event.type in {f"job.{state.value}" for state in JobState if state.terminal}]
    if ends != [f"job.{seen.state.value}"]:
        yield f"its history has the ends {ends}"
    for attempt in range(1, seen.attempt + 1):
        written = [(line["type"], line["stage"], line["data"]) for line in job.told(attempt)]
        known = [
            (event.type, event.stage, event.data) for event in events
            if event.attempt == attempt and not event.type.startswith("job.") and event.type not in OF_THE_SERVER
        ]
        if known != (written if attempt == seen.attempt else written[: len(known)]):
            yield f"of attempt {attempt} {len(written)} events were written and {len(known)} are in its history"


def _wrong_models(job: RunningJob, seen: Job) -> Iterator[str]:
    if seen.state is not JobState.SUCCEEDED:
        return
    versions = [(one.job, one.version) for one in job.client.models.versions_page(job.spec["name"]).items]
    if len(versions) != 1 or versions[0][0] != seen.id:
        yield f"its model has the versions {versions}"


def _student(job: RunningJob, seen: Job) -> str:
    if seen.model is None:
        return ""
    weights = job.artifacts / "models" / seen.model.name / str(seen.model.version) / "open_clip_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()
