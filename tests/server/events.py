"""Event segments as the engine writes them, for training jobs and for the Ray jobs of other resources."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.server.documents import STEPS, STUDENT, dataset_document, model_document

SCORES = {"top1": 0.6, "top5": 0.9, "per_class": [0.5, None], "worst_classes": []}


def write_segment(folder: Path, *events: dict[str, Any], attempt: int = 1) -> None:
    """Write the next segment of an attempt."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"time": datetime.now(UTC).isoformat(), "attempt": attempt}
    path = folder / f"{len(list(folder.iterdir())) + 1:08d}.jsonl"
    path.write_text("".join(json.dumps({**stamp, **event}) + "\n" for event in events))


class Worker:
    """A fake worker of one attempt of a training job."""

    def __init__(self, artifacts: Path, job: dict[str, Any]) -> None:
        self.job, self.attempt = job["id"], job["attempt"]
        self.artifacts = artifacts
        self.folder = artifacts / "jobs" / self.job / "attempts" / str(self.attempt) / "events"

    def emit(self, *events: dict[str, Any]) -> None:
        """Write one segment."""
        write_segment(self.folder, *events, attempt=self.attempt)

    def start(self, stage: int = 0) -> None:
        self.emit({"type": "attempt.started"})
        data = {"name": "s", "inherit": "manual", "steps": STEPS, "student": STUDENT}
        self.emit({"type": "stage.started", "stage": stage, "data": data})

    def step(self, step: int, stage: int = 0, **metrics: float) -> None:
        self.emit(progress(step, stage, **metrics))

    def succeed(self, **changes: Any) -> None:
        """Finish the job with a version whose document has these changes."""
        spec = self.spec()
        document = model_document(spec["model_name"], spec["model_version"], **changes)
        self.emit({"type": "stage.finished", "stage": 1}, {"type": "model.exported", "data": document})
        self.emit({"type": "attempt.succeeded"})

    def spec(self) -> dict[str, Any]:
        return json.loads((self.artifacts / "jobs" / self.job / "spec.json").read_text())

    def control(self) -> dict[str, Any]:
        return json.loads((self.artifacts / "jobs" / self.job / "control.json").read_text())


def progress(step: int, stage: int = 0, **metrics: float) -> dict[str, Any]:
    data = {
        "step": step, "steps": STEPS, "samples_seen": step * 10, "pairs_per_second": 5.0, "eta_seconds": float(STEPS - step),
        "metrics": metrics,
    }
    return {"type": "progress", "stage": stage, "data": data}


def log_line(message: str, source: str = "driver") -> dict[str, Any]:
    return {"type": "log", "message": message, "data": {"level": "info", "source": source}}


EVALUATION_STARTED = {"type": "evaluation.started"}


def evaluation_progress(fraction: float | None) -> dict[str, Any]:
    return {"type": "evaluation.progress", "message": "1,234 samples", "data": {"fraction": fraction}}


def evaluation_finished(
    *tasks: str, teacher: str | None = None, predictions: dict[str, Any] | None = None, **scores: Any
) -> dict[str, Any]:
    """Return the event with the same metrics for all tasks; `teacher` is the digest of the model that it was compared to."""
    models = {"student": {"name": "s", "sha256": "aa"}, **({"teacher": {"name": "t", "sha256": teacher}} if teacher else {})}
    one = {"student": {**SCORES, **scores}, "teacher": {**SCORES, "top1": 0.7} if teacher else None}
    data = {"results": dict.fromkeys(tasks, one), "models": models, "predictions": predictions or {}}
    return {"type": "evaluation.finished", "data": data}


def evaluation_failed(code: str, message: str, **where: Any) -> dict[str, Any]:
    return {"type": "evaluation.failed", "message": message, "data": {"code": code, "pointer": None, "value": None, **where}}


def dataset_progress(message: str, fraction: float) -> dict[str, Any]:
    return {"type": "dataset.progress", "message": message, "data": {"fraction": fraction}}


def dataset_finished(name: str, version: int, **changes: Any) -> dict[str, Any]:
    data = dataset_document(name, version, **changes)
    return {"type": "dataset.finished", "message": f"{data['pairs']} pairs", "data": data}


def dataset_failed(code: str, message: str, **where: Any) -> dict[str, Any]:
    return {"type": "dataset.failed", "message": message, "data": {"code": code, "pointer": None, "value": None, **where}}


def reinforcement_progress(message: str, fraction: float) -> dict[str, Any]:
    return {"type": "reinforcement.progress", "message": message, "data": {"fraction": fraction}}


def reinforcement_finished(dataset: str, version: int, id: str) -> dict[str, Any]:
    teacher = {
        "name": "t", "sha256": "aa", "scale": 50.0, "embed_dim": 32, "image_size": 64, "image_mean": [0, 0, 0],
        "image_std": [1, 1, 1],
    }  # fmt: skip
    data = {
        "id": id, "dataset": dataset, "version": version, "digest": "cd" * 32, "teachers": [teacher], "context_length": 77,
        "augmentations": 5, "augment": {}, "captions": "all", "dtype": "bf16", "precision": "fp32", "shards": 2, "samples": 90,
        "skipped": 0, "views": 450, "texts": 80, "bytes": 12_345, "seconds": 7.5,
    }  # fmt: skip
    return {"type": "reinforcement.finished", "message": "450 views", "data": data}


def export_progress(message: str, fraction: float) -> dict[str, Any]:
    return {"type": "export.progress", "message": message, "data": {"fraction": fraction}}


def index_progress(done: int, total: int | None) -> dict[str, Any]:
    return {"type": "index.progress", "data": {"done": done, "total": total}}


def index_finished(count: int) -> dict[str, Any]:
    data = {"count": count, "kind": "exact", "recall": None}
    return {"type": "index.finished", "message": f"{count} items", "data": data}


def index_updated(applied: int, count: int, *rejected: dict[str, Any], last: bool = True) -> dict[str, Any]:
    data = {"applied": applied, "count": count, "kind": "hnsw", "recall": 0.98, "rejected": list(rejected), "last": last}
    return {"type": "index.updated", "data": data}
