"""The export job: its files and events, also after a kill, a deletion, a later attempt and with invalid input."""

import hashlib
import json
import logging
from pathlib import Path

import pytest
from PIL import Image
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON, ExportDocument
from tinyclip.schemas.spec import TrainData, ZeroShotTask
from tinyclip_workers import jobs
from tinyclip_workers.exporting import job
from tinyclip_workers.exporting.samples import CALIBRATION, CHECKED, gather_samples, synthetic_samples
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.tokenizers import count_unknown_tokens

from tests.workers.exports import random_model, write_model
from tests.workers.shards import COLORS, color_samples, write_shard

ID = "export_1"
TARGET = "models/tiny/1/exports"
PRESET = "TinyCLIP-ViT-8M-16-Text-3M"


def task(folder: Path, **changes: object) -> JSON:
    return {"name": "colors", "kind": "zero_shot", "shards": f"{folder}/val.tar", "classes": list(COLORS), **changes}


def request_export(store: ArtifactsStore, format: str = "open_clip", attempt: int = 1, **changes: object) -> None:
    request = {"name": "tiny", "version": 1, "format": format, "attempt": attempt, **changes}
    store.write_bytes(f"exports/{ID}/request.json", json.dumps(request).encode())


def run_job(store: ArtifactsStore, attempt: int = 1) -> int:
    return jobs.main(["export", "--artifacts", store.root, "--export", ID, "--attempt", str(attempt)])


def events(store: ArtifactsStore, attempt: int = 1) -> list[JSON]:
    folder = f"exports/{ID}/attempts/{attempt}/events"
    lines = [line for name in store.list(folder) for line in store.read_bytes(f"{folder}/{name}").splitlines()]
    return [event for event in map(json.loads, lines) if event["type"] != "log"]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    write_shard(tmp_path / "val.tar", color_samples(20))
    store = ArtifactsStore(str(tmp_path / "store"))
    write_model(store, random_model("vit"))
    return store


@pytest.mark.parametrize("remote", [False, True])
def test_writes_the_files_of_its_document_and_reports_it(tmp_path: Path, store: ArtifactsStore, remote: bool) -> None:
    if remote:
        store = ArtifactsStore(f"memory://{tmp_path.name}")
        write_model(store, random_model("vit"))
    request_export(store, "hf", tasks=[task(tmp_path)])

    assert run_job(store) == 0

    reported = events(store)
    assert [event["type"] for event in reported] == ["export.progress"] * 4 + ["export.finished"]
    fractions = [event["data"]["fraction"] for event in reported[:-1]]
    assert fractions == sorted(fractions)
    written = store.read_bytes(f"{TARGET}/hf/export.json")
    document = ExportDocument.model_validate_json(written)
    assert reported[-1]["data"] == json.loads(written)
    assert {file.path for file in document.files} | {"export.json"} == set(store.list(f"{TARGET}/hf"))
    for file in document.files:
        data = store.read_bytes(f"{TARGET}/hf/{file.path}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert (document.model, document.check.data, document.check.pictures) == ("tiny@1", "evaluation task colors", 4)
    assert document.check.texts == 4  # one prompt a class
    assert document.made_with["transformers"]


def trained_on(folder: Path) -> JSON:
    retrieval = {"name": "captions", "kind": "retrieval", "shards": f"{folder}/val.tar", "caption_key": "json.captions"}
    return {
        "name": "s", "teacher": {"model": "ViT-B-32", "pretrained": "openai"},
        "data": {"train": {"shards": f"{folder}/train.tar"}},
        "stages": [{"name": "a", "student": {"preset": PRESET}, "train": {"steps": 1}}],
        "evaluation": {"tasks": [task(folder, classes=["cat", "dog"]), retrieval]},
    }


def test_a_reduced_vocabulary_has_the_tokens_of_the_version_s_texts(tmp_path: Path, store: ArtifactsStore) -> None:
    write_shard(tmp_path / "train.tar", [{**sample, "txt": "a square house"} for sample in color_samples(4)])
    write_model(store, random_model("vit"), spec=trained_on(tmp_path))
    request_export(store, "tinyclip", vocabulary="reduced", embedding="fp16", tasks=[task(tmp_path, classes=["zebra"])])

    assert run_job(store) == 0

    document = ExportDocument.model_validate(events(store)[-1]["data"])
    small = load_folder(str(Path(store.root) / TARGET / "tinyclip-reduced-embedding-fp16"))
    report = document.reduction
    assert report is not None
    assert (report.texts, report.evaluation_texts, report.of) == (4 + 2 + 1, 24, 49408)
    assert report.tokens == small.layout.vocab_size < 700
    assert report.bytes_saved == 2 * 32 * (49408 - report.tokens)
    assert report.exact_share == 0  # colors and numbers are in no training caption
    texts = ["a square house", "a photo of a zebra.", "a photo of a dog.", "a green square", "17"]
    assert count_unknown_tokens(small.tokenizer, texts) == 0
    assert count_unknown_tokens(small.tokenizer, ["an elephant"]) == 2
    assert events(store)[-1]["message"].startswith(f"{report.tokens} of 49,408 tokens, ")


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        (None, "no_training_data", "was imported, so there are no training captions"),
        ("gone", "unreadable_data", "the captions of tiny@1 cannot be read: "),
    ],
)
def test_a_vocabulary_is_not_reduced_without_captions(
    tmp_path: Path, store: ArtifactsStore, spec: str | None, code: str, message: str
) -> None:
    if spec is not None:
        write_model(store, random_model("vit"), spec=trained_on(tmp_path))
    request_export(store, "tinyclip", vocabulary="reduced")

    assert run_job(store) == 1

    last = events(store)[-1]
    assert (last["type"], last["data"]) == ("export.failed", {"code": code})
    assert message in last["message"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_killed_attempt_leaves_no_export_and_the_next_attempt_creates_it(
    store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write_bytes, done = ArtifactsStore.write_bytes, []

    def killed(self: ArtifactsStore, path: str, data: bytes) -> None:
        if path.startswith(TARGET):
            if len(done) == written:
                raise KeyboardInterrupt
            done.append(path)
        write_bytes(self, path, data)

    request_export(store)
    monkeypatch.setattr(ArtifactsStore, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        run_job(store)
    assert not store.exists(f"{TARGET}/open_clip/export.json")
    monkeypatch.setattr(ArtifactsStore, "write_bytes", write_bytes)
    store.write_bytes(f"{TARGET}/open_clip/of-an-older-tinyclip.bin", b"left by a kill")
    request_export(store, attempt=2)

    assert run_job(store, attempt=2) == 0

    document = ExportDocument.model_validate_json(store.read_bytes(f"{TARGET}/open_clip/export.json"))
    assert {file.path for file in document.files} | {"export.json"} == set(store.list(f"{TARGET}/open_clip"))


def test_an_attempt_that_finds_an_export_only_reports_it(store: ArtifactsStore) -> None:
    request_export(store)
    run_job(store)
    found = store.read_bytes(f"{TARGET}/open_clip/export.json")
    request_export(store, attempt=2)

    assert run_job(store, attempt=2) == 0

    assert store.read_bytes(f"{TARGET}/open_clip/export.json") == found
    assert [(event["type"], event["data"]) for event in events(store, 2)] == [("export.finished", json.loads(found))]


@pytest.mark.parametrize("gone", ["deleted", "superseded"])
def test_a_withdrawn_request_writes_nothing(
    store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    caplog.set_level(logging.INFO, "tinyclip_workers")
    make = job.create_export

    def meanwhile(*args: object, **kwargs: object) -> ExportDocument:
        document = make(*args, **kwargs)  # type: ignore[arg-type]
        request_export(store, attempt=2) if gone == "superseded" else store.remove(f"exports/{ID}/request.json")
        return document

    request_export(store)
    monkeypatch.setattr(job, "create_export", meanwhile)

    assert run_job(store) == 0

    assert store.list(TARGET) == []
    assert "export.finished" not in [event["type"] for event in events(store)]


def test_a_request_deleted_before_the_start_leaves_no_folder(store: ArtifactsStore) -> None:
    assert run_job(store) == 0

    assert not store.exists(f"exports/{ID}")


@pytest.mark.parametrize(
    ("kind", "changes", "code", "message"),
    [
        ("resnet", {"format": "hf"}, "format_not_available", "tiny@1 has no hf export: its image tower is a ResNet"),
        ("folded", {"format": "open_clip"}, "format_not_available", "it has onnx, openvino"),
        ("vit", {"version": 7}, "unreadable_model", "tiny@7: "),
    ],
)
def test_an_impossible_export_fails_with_the_reason_and_writes_nothing(
    store: ArtifactsStore, kind: str, changes: JSON, code: str, message: str
) -> None:
    store.remove("models")
    write_model(store, random_model(kind))
    request_export(store, **{"format": "onnx", **changes})

    assert run_job(store) == 1

    last = events(store)[-1]
    assert (last["type"], last["data"]) == ("export.failed", {"code": code})
    assert message in last["message"]
    assert store.list(TARGET) == []


def test_a_differing_export_fails_with_the_difference(store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyclip_workers.exporting.formats import open_clip as export_open_clip

    preprocess_cfg = export_open_clip.preprocess_cfg
    monkeypatch.setattr(export_open_clip, "preprocess_cfg", lambda model: {**preprocess_cfg(model), "mean": [0.1, 0.1, 0.1]})
    request_export(store)

    assert run_job(store) == 1

    assert events(store)[-1]["data"] == {"code": "export_off"}
    assert "image embeddings differ from torch's by up to" in events(store)[-1]["message"]
    assert store.list(TARGET) == []


class TestSamples:
    def test_come_from_the_first_source_that_can_be_read(self, store: ArtifactsStore, tmp_path: Path) -> None:
        spec = {
            "name": "s", "teacher": {"model": "ViT-B-32", "pretrained": "openai"},
            "data": {"train": {"shards": f"{tmp_path}/val.tar"}},
            "stages": [{"name": "a", "student": {"preset": PRESET}, "train": {"steps": 1}}],
            "evaluation": {"tasks": [task(tmp_path, name="gone", shards="/nowhere/a.tar")]},
        }
        write_model(store, random_model("vit"), spec=spec)
        request_export(store)

        run_job(store)

        check = events(store)[-1]["data"]["check"]
        assert (check["data"], check["pictures"], check["texts"]) == ("training data", 4, 20)

    def test_calibration_images_are_not_evaluation_images(self, tmp_path: Path) -> None:
        evaluated = ZeroShotTask.model_validate(task(tmp_path))
        write_shard(tmp_path / "val.tar", color_samples(20))
        training = TrainData(shards=write_shard(tmp_path / "train.tar", color_samples(30, start=40)))
        stored = [Image.new("RGB", (32, 32), "pink")] * 8

        found = gather_samples([evaluated], training, stored)
        without = gather_samples([evaluated], None, stored)
        alone = gather_samples([evaluated], None)

        assert [len(each.checked) for each in (found, without, alone)] == [4, 4, 4]
        assert [len(each.calibration) for each in (found, without, alone)] == [30, 8, 16]
        checked = {image.tobytes() for image in found.checked}
        assert not checked & {image.tobytes() for each in (found, alone) for image in each.calibration}

    def test_are_the_versions_calibration_images_if_its_data_cannot_be_read(self) -> None:
        stored = [Image.new("RGB", (32, 32), (number, 0, 0)) for number in range(20)]

        found = gather_samples([], TrainData(shards="/nowhere/a.tar"), stored)

        assert (found.source, len(found.checked), len(found.calibration)) == ("the version's calibration images", 4, 16)

    def test_are_synthetic_and_always_the_same_if_nothing_can_be_read(self) -> None:
        first, again = synthetic_samples(), gather_samples([], None)

        assert first.source.startswith("synthetic images: no evaluation task")
        assert (len(first.checked), len(first.calibration)) == (CHECKED, CALIBRATION)
        assert [image.tobytes() for image in first.checked] == [image.tobytes() for image in again.checked]
        everything = [image.tobytes() for image in [*first.checked, *first.calibration]]
        assert len(set(everything)) == CHECKED + CALIBRATION
        assert len(set(first.texts)) == len(first.texts) == 256
