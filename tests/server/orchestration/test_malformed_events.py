"""Events with malformed data are skipped as a whole: they neither hold up what follows nor change a part of a row."""

from typing import Any

import pytest

from tests.server.datasets.pairs import register
from tests.server.documents import dataset_document
from tests.server.events import (
    SCORES,
    Worker,
    dataset_finished,
    evaluation_finished,
    index_finished,
    progress,
    reinforcement_finished,
)
from tests.server.exports.test_exports import EXPORTS, finish
from tests.server.indexes.gallery import GALLERY, MODEL, put
from tests.server.reinforcements.test_reinforcements import get as get_reinforcement
from tests.server.reinforcements.test_reinforcements import post as post_reinforcement
from tests.server.service import Service

DATASET: list[dict[str, Any]] = [
    {"type": "dataset.progress", "data": {}},
    {"type": "dataset.progress", "data": {"fraction": [1]}},
    {"type": "dataset.failed", "data": {"code": 7}},
    {"type": "dataset.finished", "data": {}},
    {"type": "dataset.finished", "data": {"unchanged": "yes"}},
    {"type": "dataset.finished", "data": {**dataset_document("emoji", 1), "samples": "many"}},
]
REINFORCEMENT: list[dict[str, Any]] = [
    {"type": "reinforcement.progress", "data": {}},
    {"type": "reinforcement.failed", "data": {}},
    {"type": "reinforcement.finished", "data": {"views": 5}},
]
EVALUATION: list[dict[str, Any]] = [
    {"type": "evaluation.progress", "data": {}},
    {"type": "evaluation.progress", "data": {"fraction": "half"}},
    {"type": "evaluation.failed", "data": {"code": 7}},
    {"type": "evaluation.finished", "data": {"models": {}}},
    {"type": "evaluation.finished", "data": {"results": {"cars": {"teacher": None}}, "models": {}}},
    {"type": "evaluation.finished", "data": {"results": {"cars": {"student": SCORES}}, "models": []}},
]
EXPORT: list[dict[str, Any]] = [
    {"type": "export.progress", "data": {"fraction": None}},
    {"type": "export.failed", "data": {}},
    {"type": "export.finished", "data": {"files": [{"path": "a"}]}},
]
INDEX: list[dict[str, Any]] = [
    {"type": "index.progress", "data": {"done": 1}},
    {"type": "index.progress", "data": {"done": "1", "total": 2}},
    {"type": "index.finished", "data": {}},
    {"type": "index.finished", "data": {"count": 1, "recall": "high"}},
    {"type": "index.finished", "data": {"count": 1, "bytes": "many"}},
    {"type": "index.updated", "data": {"applied": 1, "count": 1, "rejected": [{}], "last": True}},
    {"type": "index.updated", "data": {"applied": 1, "rejected": [], "last": True}},
]
TRAINING: list[dict[str, Any]] = [
    {**progress(2), "data": {"step": 2, "metrics": {"loss": 1.0}, "eta_seconds": "soon"}},
    {**progress(2), "data": {"step": 2, "metrics": {"loss": 10**400}}},
    {"type": "agreement.measured", "stage": 0, "data": {"step": 2, "kl": 0.5}},
    {"type": "agreement.measured", "stage": 0, "data": {"step": 2, "kl": "inf", "start_kl": 0.5}},
    {"type": "evaluation", "stage": 0, "data": {"task": "cars", "student": SCORES, "step": "last"}},
    {"type": "evaluation", "stage": 0, "data": {"task": "cars", "student": SCORES, "teacher": 3}},
    {"type": "evaluation", "stage": 0, "data": {"task": "cars", "student": [1]}},
]


@pytest.mark.parametrize("event", DATASET)
async def test_a_registration_ends_with_the_next_valid_event(service: Service, event: dict[str, Any]) -> None:
    await service.call("PUT", "/v1/datasets/emoji", {"source": {"shards": "s3://bucket/0.tar"}}, status=202)
    await service.reconcile("datasets")

    service.emit(event)
    await service.reconcile("datasets")
    kept = await service.get("/v1/datasets/emoji")
    service.emit(dataset_finished("emoji", 1))
    await service.reconcile("datasets")
    ended = await service.get("/v1/datasets/emoji")

    assert [kept[field] for field in ("state", "progress", "message", "versions")] == ["registering", 0.0, "", []]
    assert (ended["state"], ended["versions"]) == ("ready", [1])


@pytest.mark.parametrize("event", REINFORCEMENT)
async def test_a_reinforcement_ends_with_the_next_valid_event(service: Service, event: dict[str, Any]) -> None:
    await register(service)
    made = await post_reinforcement(service)
    await service.reconcile("reinforcements")

    service.emit(event)
    await service.reconcile("reinforcements")
    kept = await get_reinforcement(service, made["id"])
    service.emit(reinforcement_finished("emoji", 1, made["id"]))
    await service.reconcile("reinforcements")

    assert [kept[field] for field in ("state", "progress", "message", "views")] == ["queued", 0.0, "", 0]
    assert (await get_reinforcement(service, made["id"]))["state"] == "succeeded"


@pytest.mark.parametrize("event", EVALUATION)
async def test_an_evaluation_ends_with_the_next_valid_event(service: Service, event: dict[str, Any]) -> None:
    await service.register_model("emoji")
    task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
    made = await service.call("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [task]}, status=201)
    await service.reconcile("evaluations")

    service.emit(event)
    await service.reconcile("evaluations")
    kept = await service.get(f"/v1/evaluations/{made['id']}")
    service.emit(evaluation_finished("cars"))
    await service.reconcile("evaluations")
    ended = await service.get(f"/v1/evaluations/{made['id']}")

    assert [kept[field] for field in ("state", "progress", "message", "results")] == ["queued", 0.0, "", {}]
    assert ended["state"] == "succeeded"


@pytest.mark.parametrize("event", EXPORT)
async def test_an_export_ends_with_the_next_valid_event(service: Service, event: dict[str, Any]) -> None:
    await service.register_model(MODEL)
    page = await service.call("POST", EXPORTS, {"formats": ["onnx"]}, status=202)
    await service.reconcile("exports")

    service.emit(event)
    await service.reconcile("exports")
    kept = await service.get(f"{EXPORTS}/onnx")
    ended = await finish(service, page["items"][0])

    assert [kept[field] for field in ("state", "progress", "message", "files")] == ["queued", 0.0, "", []]
    assert ended["state"] == "succeeded"


@pytest.mark.parametrize("event", INDEX)
async def test_an_index_ends_with_the_next_valid_event(service: Service, event: dict[str, Any]) -> None:
    await service.register_model(MODEL)
    await put(service)
    await service.reconcile("indexes")

    service.emit(event)
    await service.reconcile("indexes")
    kept = await service.get(GALLERY)
    service.emit(index_finished(10))
    await service.reconcile("indexes")

    assert [kept[field] for field in ("state", "progress", "message", "count")] == ["building", 0.0, "", 0]
    assert (await service.get(GALLERY))["state"] == "ready"


@pytest.mark.parametrize("event", TRAINING)
async def test_a_training_job_keeps_what_it_showed(service: Service, event: dict[str, Any]) -> None:
    worker: Worker = await service.running()
    before = await service.job(worker.job)

    worker.emit(event)
    await service.tick()
    kept = await service.job(worker.job)
    worker.step(3)
    await service.tick()

    assert (kept["stages"], kept["progress"]) == (before["stages"], before["progress"])
    assert (await service.job(worker.job))["progress"]["step"] == 3
