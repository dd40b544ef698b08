"""One attempt at a job, for driver and workers: its document, its store, its folders."""

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.paths import (
    attempt_driver,
    attempt_events,
    attempt_outcome,
    group_stop,
    job_spec,
    job_tokenizer,
    model_version,
    stage_checkpoints,
    stage_folder,
    stage_selection,
    stage_student,
)
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.layouts import AnyLayout

from tinyclip_workers.runtime.committed import read_committed, write_committed
from tinyclip_workers.runtime.control import ControlFile
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.filesystems import open_own_store

_layouts: TypeAdapter[AnyLayout] = TypeAdapter(AnyLayout)
if TYPE_CHECKING:
    from torch import Tensor

POSITION, TOKENIZER, PREDICTIONS = "position.json", "student-", "predictions-"
"""The file of a finished student's folder with the position in the data, and how the names of others begin: of its tokenizer's
files, and of its predictions, by task."""
AXES = "axes.safetensors"
"""The file with the principal axes of its teacher's embeddings, if its own are nested."""


@dataclass(frozen=True)
class JobAttempt:
    """Attempt `attempt` at job `document.job`."""

    store: ArtifactsStore
    document: JobDocument
    attempt: int

    @classmethod
    def open(cls, artifacts: str, job: str, attempt: int) -> "JobAttempt":
        """Read the job document. Raises FileNotFoundError if there is none."""
        store = open_own_store(artifacts)
        return cls(store, JobDocument.model_validate(json.loads(store.read_bytes(job_spec(job)))), attempt)

    @property
    def spec(self) -> JobSpec:
        """The job's spec, with the shards and keys of its data set."""
        return self.document.dataset.resolve(self.document.spec) if self.document.dataset else self.document.spec

    def register_driver(self) -> bool:
        """Return whether this is the attempt's first driver: a late or repeated submission starts another one."""
        registered = json.dumps({"id": uuid.uuid4().hex, "at": time.time(), "pid": os.getpid()}).encode()
        return self.store.create_bytes(attempt_driver(self.document.job, self.attempt), registered)

    def events(self) -> EventWriter:
        return EventWriter(self.store, attempt_events(self.document.job, self.attempt), self.attempt)

    def control(self, group: str = "") -> ControlFile:
        """Return the control file as the driver reads it, or an elastic worker group of that name."""
        return ControlFile(self.store, self.document.job, self.attempt, group=group)

    def stop_group(self, group: str) -> None:
        """Let an elastic worker group write a checkpoint and stop."""
        self.store.write_bytes(group_stop(self.document.job, self.attempt, group), b"")

    def is_group_stopped(self, group: str) -> bool:
        """Return whether `stop_group` was called."""
        return self.store.exists(group_stop(self.document.job, self.attempt, group))

    def stage_folder(self, index: int) -> str:
        """Return the folder of a stage's checkpoints, of all attempts."""
        return stage_folder(self.document.job, index, self.spec.stages[index].name)

    def student_folder(self, index: int) -> str:
        """Return the folder of a stage's finished student."""
        return stage_student(self.document.job, index, self.spec.stages[index].name)

    def checkpoint_folder(self, index: int) -> str:
        return stage_checkpoints(self.document.job, index, self.spec.stages[index].name, self.attempt)

    def model_folder(self) -> str:
        return model_version(self.document.model_name, self.document.model_version)

    def finished_stage(self, index: int) -> "FinishedStudent | None":
        """Return a stage's finished student, of any attempt; None if the stage is not finished."""
        files = read_committed(self.store, self.student_folder(index))
        if files is None or "layout.json" not in files:  # version 0.1 wrote none: it is finished again
            return None
        layout = _layouts.validate_json(files["layout.json"])
        tokenizer, predictions = _named(files, TOKENIZER), _named(files, PREDICTIONS)
        axes_EE = _read_axes(files[AXES]) if AXES in files else None
        evaluation = json.loads(files["evaluation.json"])
        return FinishedStudent(layout, files["model.safetensors"], evaluation, None, tokenizer, axes_EE, predictions)

    def position_after_stage(self, index: int) -> dict[str, Any] | None:
        """Return where a finished stage ended in the data; None for a student of an older version, which has no such file."""
        files = read_committed(self.store, self.student_folder(index), only=POSITION) or {}
        position: dict[str, Any] | None = json.loads(files[POSITION]) if POSITION in files else None
        return position

    def finish_stage(self, index: int, student: "FinishedStudent") -> None:
        files = {
            "model.safetensors": student.weights,
            "layout.json": student.layout.model_dump_json(indent=1).encode(),
            "evaluation.json": json.dumps(student.evaluation, indent=1).encode(),
            **{f"{TOKENIZER}{name}": content for name, content in student.tokenizer.items()},
            **{f"{PREDICTIONS}{task}": content for task, content in student.predictions.items()},
        }
        if student.position is not None:
            files[POSITION] = json.dumps(student.position).encode()
        if student.axes_EE is not None:
            files[AXES] = _axes_file(student.axes_EE)
        write_committed(self.store, self.student_folder(index), files)

    def selection(self, index: int, setting: str) -> dict[str, Any] | None:
        """Return the result of a stage's test for a setting that is `auto`; None before."""
        path = stage_selection(self.document.job, index, self.spec.stages[index].name, setting)
        found: dict[str, Any] | None = json.loads(self.store.read_bytes(path)) if self.store.exists(path) else None
        return found

    def keep_selection(self, index: int, setting: str, result: dict[str, Any]) -> None:
        """Store the result of a stage's test for a setting, unless there is one."""
        path = stage_selection(self.document.job, index, self.spec.stages[index].name, setting)
        self.store.create_bytes(path, json.dumps(result).encode())

    def tokenizer(self) -> dict[str, bytes] | None:
        """Return the files of the tokenizer that the job gives its students (`TokenizerSource.to_files`); None before."""
        return read_committed(self.store, job_tokenizer(self.document.job))

    def keep_tokenizer(self, files: dict[str, bytes]) -> None:
        """Store the tokenizer for all stages and attempts."""
        write_committed(self.store, job_tokenizer(self.document.job), files)

    def outcome(self) -> "Outcome | None":
        """Return the outcome that a worker has reported; None if there is none."""
        path = attempt_outcome(self.document.job, self.attempt)
        return Outcome(**json.loads(self.store.read_bytes(path))) if self.store.exists(path) else None

    def set_outcome(self, outcome: "Outcome") -> None:
        self.store.write_bytes(attempt_outcome(self.document.job, self.attempt), json.dumps(outcome.__dict__).encode())


@dataclass(frozen=True)
class FinishedStudent:
    """The result of a stage, for the next one and for the model version."""

    layout: AnyLayout
    weights: bytes
    """safetensors."""
    evaluation: dict[str, Any]
    position: dict[str, Any] | None = None
    """The position in the data, for the next stage (`data/stream/positions.py`); set to store a student, not read back."""
    tokenizer: Mapping[str, bytes] = field(default_factory=dict)
    """The files of a tokenizer of its own (`TokenizerSource.to_files`); none for CLIP's."""
    axes_EE: "Tensor | None" = None
    """Principal axes of the teacher's embeddings, if the student's are nested. The weights are not yet on them."""
    predictions: Mapping[str, bytes] = field(default_factory=dict)
    """Of the last stage: by task, a packed `TaskPredictions`."""


@dataclass(frozen=True)
class Outcome:
    """The reason why a worker group stopped before the end of its stage: a non-retryable error, or a command."""

    kind: str
    """`failed`, `pause`, `cancel` or `fenced`."""
    code: str = ""
    message: str = ""
    step: int = 0


def _named(files: Mapping[str, bytes], start: str) -> dict[str, bytes]:
    return {name.removeprefix(start): content for name, content in files.items() if name.startswith(start)}


def _read_axes(file: bytes) -> "Tensor":
    from safetensors.torch import load  # torch takes seconds, and processes that index data have an attempt as well

    return load(file)["axes"]


def _axes_file(axes_EE: "Tensor") -> bytes:
    from safetensors.torch import save

    return save({"axes": axes_EE.detach().cpu().contiguous()})
