"""The jobs of the cases, observed through their files."""

import json
import time
from pathlib import Path
from typing import Any

from tinyclip import Client
from tinyclip.errors import CannotReachServer, ProblemError
from tinyclip.schemas import Job, JobState
from tinyclip.specfile import load_spec

from bench.chaos.files import Files
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
ELASTIC_STEPS = 2000
"""A group trains for half a minute before it grows."""
VIT = {
    "embed_dim": 32, "image": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text": {"layers": 1, "width": 32, "heads": 2, "context_length": 16},
}  # fmt: skip
CHECK_SECONDS = 5.0
"""Interval at which a waiting case asks the API whether the job has ended."""


def write_inputs(folder: Path) -> Path:
    """Write a teacher of 0.8 million parameters, 72 training pairs and the spec, and return the spec's file."""
    write_shards(folder / "train", shards=2, pairs=36)
    write_shards(folder / "val", shards=1, pairs=24, name="val")
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    (folder / "spec.yaml").write_text(SPEC)
    return folder / "spec.yaml"


def spec_of(file: Path, kind: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return a spec: `short` has one stage, `long` a second one from the first one's student.

    `pair` has one stage on two workers, and `elastic` a longer one on one or two. The sums of groups of different sizes are
    rounded differently: batch normalization and a loss close to zero would enlarge that until the students differ.
    """
    spec = load_spec(file)
    first = {**spec["stages"][0], "train": {"steps": STEPS}}
    second = {"name": "half", "student": {"image": {"width": 2}}, "train": {"steps": 4 * STEPS}}
    resources = {"workers": {"pair": 2, "elastic": {"min": 1, "max": 2}}.get(kind, 1)}
    if kind == "elastic":
        first = {"name": "whole", "inherit": "none", "student": VIT, "train": {"steps": ELASTIC_STEPS}}
        changes |= {"batch_size": 48, "optimizer": {"lr": 1e-5}, "objective": {"contrastive": 1}}
    return {**spec, "name": name, "stages": [first, second] if kind == "long" else [first], "resources": resources, **changes}


class RunningJob:
    """A submitted job, observed through its files, which no fault removes."""

    def __init__(self, client: Client, files: Files, spec: dict[str, Any]) -> None:
        self.client, self.spec, self.files = client, spec, files
        self._segments: dict[str, list[dict[str, Any]]] = {}
        self.id = client.jobs.submit(spec).id
        self.begun = time.monotonic()

    @property
    def folder(self) -> str:
        return f"jobs/{self.id}"

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage["train"]["steps"] for stage in self.spec["stages"])

    def retry(self) -> None:
        """Retry the failed job, and follow the new one from here on."""
        self.id = self.client.jobs.retry(self.id).id

    def steps_done(self, attempt: int | None = None) -> int:
        """Return the steps up to the newest committed checkpoint of all stages, or of those that one attempt wrote."""
        newest: dict[str, int] = {}
        for path in self.files.names(f"{self.folder}/stages/*/a{attempt or '*'}/step-*/manifest.json"):
            _, _, _, stage, _, step, _ = path.split("/")
            newest[stage] = max(newest.get(stage, 0), int(step.removeprefix("step-")))
        return sum(newest.values())

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt whose driver has started; 0 before the first."""
        started = self.files.names(f"{self.folder}/attempts/*/driver.json")
        return max((int(path.split("/")[3]) for path in started), default=0)

    def has_ended(self) -> bool:
        """Return whether the newest attempt has written its success, even if the control plane has not read it yet."""
        lines = self.reported(self.newest_attempt())
        return bool(lines) and lines[-1]["type"] == "attempt.succeeded"

    def wait_until(self, condition: Any, what: str) -> None:
        """Wait until a condition holds. Raises `RuntimeError` if the job ends before."""
        check_at = time.monotonic() + CHECK_SECONDS

        def holds() -> bool:
            nonlocal check_at
            if condition():
                return True
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CHECK_SECONDS
                shown = self.get_if_available()
                if shown is not None and shown.state.terminal:
                    raise RuntimeError(f"{self.id} {shown.state} before {what}: {shown.error}")
            return False

        wait_until(holds, f"{what} of {self.id}", every=self.files.poll_seconds)

    def wait_for_steps(self, steps: int, attempt: int | None = None) -> None:
        """Wait for a committed checkpoint at this step, counted over all stages, or at a later one."""
        self.wait_until(lambda: self.steps_done(attempt) >= steps, f"step {steps}")

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

    def story(self) -> list[str]:
        """Return its first 500 events, without progress and logs, to explain a failure; none if the API does not answer."""
        try:
            events = self.client.jobs.events_page(self.id, page_size=500).items
        except (CannotReachServer, ProblemError):
            return []
        return [f"{event.attempt} {event.type}: {event.message}" for event in events if event.type not in ("progress", "log")]

    def history(self) -> list[str]:
        """Return the types of its first 500 events."""
        return [event.type for event in self.client.jobs.events_page(self.id, page_size=500).items]

    def reported(self, attempt: int) -> list[dict[str, Any]]:
        """Return the events that an attempt's driver and workers have written, in order, without log lines."""
        return [
            line for path in sorted(self.files.names(f"{self.folder}/attempts/{attempt}/events/*.jsonl"))
            for line in self._segment(path) if line["type"] != "log"
        ]

    def _segment(self, path: str) -> list[dict[str, Any]]:
        """Read a segment once: it never changes."""
        if path not in self._segments:
            self._segments[path] = [json.loads(line) for line in self.files.read(path).splitlines()]
        return self._segments[path]
