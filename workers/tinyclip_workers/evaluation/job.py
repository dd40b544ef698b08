"""Evaluates a model, and another one on the same images: the work of the Ray job `tc-evaluation-<id>-a<attempt>`.

The numbers are one file, `results.json`, which is there with all of them or not at all; an attempt that finds it only tells
of it again. Progress goes up as events.
"""

import json
import time

import torch
from pydantic import ValidationError
from tinyclip.artifacts.documents import EvaluatedModel, EvaluationRequest
from tinyclip.artifacts.paths import evaluation_request, evaluation_results
from tinyclip.schemas import JSON

from tinyclip_workers.data.shards import DataError, Sample, ShardProgress
from tinyclip_workers.evaluation.tasks import evaluate_tasks, shards_to_read
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.sources import TeacherError, load_teacher
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn
from tinyclip_workers.runtime.store import Store

PROGRESS_SECONDS = 1.0
STUDENT, TEACHER = "student", "teacher"
"""What results call the model and the one it is held against, as everywhere else."""


def evaluate(store: Store, id: str, events: EventWriter) -> None:
    """Evaluate what the request names, and emit `evaluation.finished`. Raises RequestWithdrawn, JobFailed."""
    events.send("evaluation.finished", data=_evaluated(store, id, events))


def _evaluated(store: Store, id: str, events: EventWriter) -> JSON:
    """Return `{"results", "models"}`, computed now or by an earlier attempt. Raises RequestWithdrawn, JobFailed."""
    request, path = _request(store, id), evaluation_results(id)
    if store.exists(path):
        document: JSON = json.loads(store.read_bytes(path))
        return document
    events.send("evaluation.started")
    try:
        document = evaluate_request(request, events)
    except DataError as error:
        raise JobFailed("unreadable_data", str(error), pointer=_pointer(request, error), value=error.value) from error
    except (ValueError, OSError) as error:
        raise JobFailed("evaluation_failed", str(error)) from error
    text = json.dumps(document, allow_nan=False)
    _request(store, id)
    store.write_bytes(path, text.encode())
    return document


def evaluate_request(request: EvaluationRequest, events: EventWriter) -> JSON:
    """`results`: {task: {"student": {metric: value}, "teacher": {…} or null}}, and `models`: name and digest of the two.

    Raises DataError, JobFailed, ValueError or OSError.
    """
    models = {STUDENT: _loaded("/model", request.model)}
    if request.against is not None:
        models[TEACHER] = _loaded("/against", request.against)
    progress = _Progress(events, shards_to_read(request.tasks))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = evaluate_tasks(models, request.tasks, holdout=request.holdout, device=device, seen=progress.saw)
    return {
        "results": {task: {STUDENT: scores[STUDENT], TEACHER: scores.get(TEACHER)} for task, scores in found.items()},
        "models": {role: {"name": loaded.name, "sha256": loaded.digest} for role, loaded in models.items()},
    }


def _loaded(pointer: str, model: EvaluatedModel) -> LoadedModel:
    try:
        return load_teacher(model.source)
    except TeacherError as error:
        raise JobFailed("unreadable_model", f"{model.name}: {error.message}", pointer=pointer, value=model.name) from error


def _request(store: Store, id: str) -> EvaluationRequest:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        return EvaluationRequest.model_validate_json(store.read_bytes(evaluation_request(id)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"evaluation {id} was deleted") from error
    except ValidationError as error:
        message = f"{store.uri(evaluation_request(id))} is not a request for an evaluation: {error}"
        raise JobFailed("evaluation_failed", message) from error


def _pointer(request: EvaluationRequest, error: DataError) -> str | None:
    """`evaluation.tasks.NAME.FIELD`, as tasks say it, as a place in what was posted."""
    place = error.field.removeprefix("evaluation.tasks.")
    for index, task in enumerate(request.tasks):
        if place.startswith(f"{task.name}."):
            return f"/tasks/{index}/{place.removeprefix(f'{task.name}.')}"
    return None


class _Progress:
    """A line about once a second."""

    def __init__(self, events: EventWriter, urls: list[str]) -> None:
        self._events, self._bytes = events, ShardProgress(urls)
        self._samples, self._told_at = 0, time.monotonic()

    def saw(self, sample: Sample) -> None:
        self._bytes.add(sample)
        self._samples += 1
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            data = {"fraction": self._bytes.fraction()}
            self._events.send("evaluation.progress", message=f"{self._samples:,} samples", data=data)
