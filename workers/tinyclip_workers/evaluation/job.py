"""The work of the Ray job `tc-evaluation-<id>-a<attempt>`: evaluate a model, and optionally another one on the same images.

The scores are committed as one file, `results.json`, written after the predictions for each image. An attempt that finds it only
emits the final event again. Progress is reported as events.
"""

import json

import torch
from pydantic import ValidationError
from tinyclip.artifacts.documents import EvaluatedModel, EvaluationRequest
from tinyclip.artifacts.paths import evaluation_predictions, evaluation_request, evaluation_results
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.evaluation.labels import task_pointer
from tinyclip_workers.evaluation.predictions import PredictedTasks, describe
from tinyclip_workers.evaluation.progress import PassProgress
from tinyclip_workers.evaluation.tasks import evaluate_tasks, shards_to_read
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn

STUDENT, TEACHER = "student", "teacher"
"""Names in the results of the model and of the one that it is compared with."""


def evaluate(store: ArtifactsStore, id: str, events: EventWriter) -> None:
    """Evaluate what the request names, and emit `evaluation.finished`. Raises RequestWithdrawn, JobFailed."""
    events.send("evaluation.finished", data=_results(store, id, events))


def _results(store: ArtifactsStore, id: str, events: EventWriter) -> JSON:
    """Return `{"results", "models", "predictions"}`, found now or by an earlier attempt. Raises RequestWithdrawn, JobFailed."""
    request, path = _read_request(store, id), evaluation_results(id)
    if store.exists(path):
        document: JSON = json.loads(store.read_bytes(path))
        return document
    events.send("evaluation.started")
    try:
        document, predicted = evaluate_request(request, events)
    except DataError as error:
        raise JobFailed("unreadable_data", str(error), pointer=task_pointer(request.tasks, error), value=error.value) from error
    except (ValueError, OSError) as error:
        raise JobFailed("evaluation_failed", str(error)) from error
    packed = {task: found.pack() for task, found in predicted.items()}
    kept = {task: describe(found, packed[task], id).model_dump(mode="json") for task, found in predicted.items()}
    text = json.dumps({**document, "predictions": kept}, allow_nan=False)
    _read_request(store, id)
    for task, content in packed.items():
        store.write_bytes(evaluation_predictions(id, task), content)
    store.write_bytes(path, text.encode())
    return {**document, "predictions": kept}


def evaluate_request(request: EvaluationRequest, events: EventWriter) -> tuple[JSON, PredictedTasks]:
    """Return `results`: {task: {"student": {metric: value}, "teacher": {…} or None}}, and `models`: names and digests.

    Beside them, the predictions of zero-shot tasks.

    Raises DataError, JobFailed, ValueError or OSError.
    """
    models = {STUDENT: _load_model("/model", request.model)}
    if request.against is not None:
        models[TEACHER] = _load_model("/against", request.against)

    def report(fraction: float | None, samples: int) -> None:
        events.send("evaluation.progress", message=f"{samples:,} samples", data={"fraction": fraction})

    progress = PassProgress(shards_to_read(request.tasks), report)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predicted: PredictedTasks = {}
    scores_by_task = evaluate_tasks(
        models, request.tasks, holdout=request.holdout, device=device, on_sample=progress.add, predicted=predicted
    )
    document = {
        "results": {task: {STUDENT: scores[STUDENT], TEACHER: scores.get(TEACHER)} for task, scores in scores_by_task.items()},
        "models": {role: {"name": loaded.name, "sha256": loaded.digest} for role, loaded in models.items()},
    }
    return document, predicted


def _load_model(pointer: str, model: EvaluatedModel) -> LoadedModel:
    try:
        return load_teacher(model.source)
    except TeacherError as error:
        raise JobFailed("unreadable_model", f"{model.name}: {error.message}", pointer=pointer, value=model.name) from error


def _read_request(store: ArtifactsStore, id: str) -> EvaluationRequest:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        return EvaluationRequest.model_validate_json(store.read_bytes(evaluation_request(id)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"evaluation {id} was deleted") from error
    except ValidationError as error:
        message = f"{store.uri(evaluation_request(id))} is not a request for an evaluation: {error}"
        raise JobFailed("evaluation_failed", message) from error
