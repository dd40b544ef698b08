"""The outcome of a job, and the checks of its history and its model."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tinyclip.schemas import Event, Job, JobState

from bench.chaos.jobs import RunningJob

SERVER_EVENTS = {
    "attempt.submitted", "attempt.pending", "attempt.held_up", "attempt.unknown", "attempt.lost", "attempt.stalled",
    "attempt.interrupted",
}
"""Events that the control plane adds, as it does those that begin with `job.`; drivers and workers report all others."""
ADVANCES = {"checkpoint": 0, "stage.finished": 1, "model.exported": 2, "attempt.succeeded": 3}
"""Events that show that the job has advanced, with their order within a stage or at the same step."""


@dataclass
class Fault:
    """A fault at a moment that its seed has chosen; the fields are keys of `chaos.json`."""

    seed: int
    job: str
    at: float
    """Seconds since 1970."""
    steps: int
    """Steps up to the newest checkpoint."""
    attempt: int
    """The newest attempt."""
    seconds: float = 0.0
    """Duration of the fault."""
    note: str = ""
    new_attempt: bool = False
    """True if another attempt must continue the job."""
    recovery: float | None = None
    """Seconds from its beginning until the job advanced, by a checkpoint or the end of a stage."""


@dataclass
class Outcome:
    """The outcome of a job; the fields are keys of `chaos.json`."""

    job: str
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
        job=job.id,
        state=shown.state.value,
        seconds=seconds,
        attempts=shown.attempt,
        restarts=sum(line["type"] == "worker.restarted" for line in lines),
        lost_steps=_lost_steps(lines),
        events=len(events),
        student=_student(job, shown),
        wrong=[*wrong_history(job, shown, events), *_wrong_models(job, shown)],
    )


def measure_recovery(faults: Sequence[Fault], lines: Sequence[dict[str, Any]]) -> None:
    """Set the `recovery` of each fault from a job's reported lines."""
    advances = sorted(
        (datetime.fromisoformat(line["time"]).timestamp(), line["attempt"], _position(line))
        for line in lines if line["type"] in ADVANCES
    )
    for fault in faults:
        before = max((position for at, _, position in advances if at <= fault.at), default=())
        first_attempt = fault.attempt + fault.new_attempt
        later = (at for at, attempt, position in advances if at > fault.at and attempt >= first_attempt and position > before)
        fault.recovery = next((at - fault.at for at in later), None)


def _position(line: dict[str, Any]) -> tuple[int, ...]:
    """Return how far a job is at an event that shows an advance."""
    kind = ADVANCES[line["type"]]
    stage = 1_000_000 if line["stage"] is None else line["stage"]
    return (stage, kind, int(line["data"].get("step", 0)))


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


def wrong_history(job: RunningJob, shown: Job, events: list[Event]) -> Iterator[str]:
    """Yield the problems: gaps, not exactly one final event, or lost or repeated lines (earlier attempts may be cut off)."""
    if [event.id for event in events] != list(range(1, len(events) + 1)):
        yield "the numbers of its events have gaps"
    ends = [event.type for event in events if event.type in {f"job.{state.value}" for state in JobState if state.terminal}]
    if ends != [f"job.{shown.state.value}"]:
        yield f"its history has the ends {ends}"
    for attempt in range(1, shown.attempt + 1):
        lines = [json.dumps(line, sort_keys=True) for line in job.reported(attempt)]
        if len(lines) != len(set(lines)):
            yield f"attempt {attempt}: its segments repeat {len(lines) - len(set(lines))} events"
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
    weights = job.files.read(f"models/{shown.model.name}/{shown.model.version}/open_clip_model.safetensors")
    return hashlib.sha256(weights).hexdigest()
