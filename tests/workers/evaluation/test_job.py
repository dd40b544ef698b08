"""The evaluation job: its results and events, also after a kill, a deletion and invalid input."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.predictions import TaskPredictions
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON, KeptPredictions
from tinyclip_workers import jobs
from tinyclip_workers.evaluation import job as evaluation_job
from tinyclip_workers.evaluation import progress
from tinyclip_workers.model.files.folders import load_folder

from tests.workers.evaluations import evaluate
from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shards import COLORS, color_samples, write_shard

ID = "eval_1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    for seed in (0, 1):
        write_folder(root / f"model-{seed}", tiny_model(seed), tiny_layout())
    write_shard(root / "val.tar", color_samples(20))
    return root


def task(folder: Path, **changes: Any) -> JSON:
    return {"name": "colors", "kind": "zero_shot", "shards": f"{folder}/val.tar", "classes": list(COLORS), **changes}


def model(folder: Path, seed: int) -> JSON:
    return {"name": f"model-{seed}", "source": {"model": f"local-dir:{folder}/model-{seed}"}}


def write_request(store: ArtifactsStore, folder: Path, *tasks: JSON, **changes: Any) -> None:
    request = {"model": model(folder, 0), "tasks": list(tasks) or [task(folder)], **changes}
    store.write_bytes(f"evaluations/{ID}/request.json", json.dumps(request).encode())


def run(store: ArtifactsStore, attempt: int = 1) -> int:
    return jobs.main(["evaluation", "--artifacts", store.root, "--evaluation", ID, "--attempt", str(attempt)])


def events(store: ArtifactsStore, attempt: int = 1) -> list[JSON]:
    folder = f"evaluations/{ID}/attempts/{attempt}/events"
    return [json.loads(line) for name in store.list(folder) for line in store.read_bytes(f"{folder}/{name}").splitlines()]


@pytest.mark.parametrize("remote", [False, True])
def test_results_of_both_models_equal_those_of_each_task_alone(tmp_path: Path, folder: Path, remote: bool) -> None:
    store = ArtifactsStore(f"memory://{tmp_path.name}" if remote else str(tmp_path))
    words = {"name": "words", "kind": "retrieval", "shards": f"{folder}/val.tar"}
    write_request(store, folder, task(folder), words, against=model(folder, 1))

    assert run(store) == 0

    student, teacher = (load_folder(f"{folder}/model-{seed}") for seed in (0, 1))
    written = json.loads(store.read_bytes(f"evaluations/{ID}/results.json"))
    assert written["models"]["teacher"] == {"name": "model-1", "sha256": teacher.digest}
    assert list(written["results"]) == ["colors", "words"]
    predictions = store.read_bytes(f"evaluations/{ID}/predictions/colors.json.gz")
    kept = KeptPredictions(**written["predictions"].pop("colors"))
    assert (written["predictions"], kept.kept, kept.teacher, kept.evaluation) == ({}, 20, True, ID)
    assert kept.sha256 == hashlib.sha256(predictions).hexdigest()
    assert kept.images_sha256 == TaskPredictions.unpack(predictions).images_digest()
    request = evaluation_job.EvaluationRequest.model_validate_json(store.read_bytes(f"evaluations/{ID}/request.json"))
    for each in request.tasks:
        alone = evaluate({"student": student, "teacher": teacher}, each)
        for role in ("student", "teacher"):
            assert {**written["results"][each.name][role], "ms_per_image": 0} == {**alone[role], "ms_per_image": 0}
    assert [event["type"] for event in events(store)] == ["evaluation.started", "evaluation.finished"]
    assert events(store)[-1]["data"] == json.loads(store.read_bytes(f"evaluations/{ID}/results.json"))


def test_progress_is_reported_as_a_fraction_of_the_shards(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    store = ArtifactsStore(str(tmp_path))
    probe = task(folder, name="p", kind="linear_probe", train_shards=f"{folder}/val.tar")
    del probe["classes"]
    write_request(store, folder, task(folder), probe)

    run(store)

    fractions = [event["data"]["fraction"] for event in events(store) if event["type"] == "evaluation.progress"]
    assert fractions == sorted(fractions)
    assert fractions[19] == pytest.approx(0.5, abs=0.1)
    assert fractions[-1] > 0.85


def test_an_attempt_after_one_that_died_before_its_final_event_emits_the_same_results(tmp_path: Path, folder: Path) -> None:
    store = ArtifactsStore(str(tmp_path))
    write_request(store, folder)
    run(store)
    found = store.read_bytes(f"evaluations/{ID}/results.json")

    assert run(store, attempt=2) == 0

    assert store.read_bytes(f"evaluations/{ID}/results.json") == found
    assert [event["type"] for event in events(store, 2)] == ["evaluation.finished"]
    assert events(store, 2)[-1]["data"] == json.loads(found)


def test_a_deleted_evaluation_ends_without_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyclip_workers")  # as the job's own process has it
    store = ArtifactsStore(str(tmp_path))

    assert run(store) == 0

    assert not store.exists(f"evaluations/{ID}")


@pytest.mark.parametrize(
    ("changes", "code", "pointer", "message"),
    [
        ({"tasks": [{"classes": ["a"]}]}, "unreadable_data", "/tasks/0/classes", "but the 1 classes are 0 to 0"),
        ({"tasks": [{}, {"name": "none", "where": {"odd": "x"}}]}, "unreadable_data", "/tasks/1/shards", "task none has nothing"),
        ({"tasks": [{"shards": "/nowhere/a.tar"}]}, "unreadable_data", None, "none of the 1 shards can be read"),
        ({"against": {"name": "x", "source": {"model": "local-dir:/nowhere"}}}, "unreadable_model", "/against", "x: there is no"),
    ],
)
def test_invalid_input_is_reported_with_its_pointer_and_writes_no_results(
    tmp_path: Path, folder: Path, changes: JSON, code: str, pointer: str | None, message: str
) -> None:
    store = ArtifactsStore(str(tmp_path))
    write_request(store, folder, *(task(folder, **each) for each in changes.pop("tasks", [{}])), **changes)

    assert run(store) == 1

    last = events(store)[-1]
    assert (last["type"], last["data"]["code"], last["data"]["pointer"]) == ("evaluation.failed", code, pointer)
    assert message in last["message"]
    assert not store.exists(f"evaluations/{ID}/results.json")
