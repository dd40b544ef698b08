"""The job that exports: what it writes and tells, and what a kill, a deletion, a later attempt and bad input leave behind."""

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
from tinyclip_workers.exporting import job as exporting
from tinyclip_workers.exporting.samples import CALIBRATION, CHECKED, drawn, gather

from tests.workers.exports import LAYOUTS, loaded, write_model
from tests.workers.shards import COLORS, color_samples, write_shard

ID = "export_1"
TARGET = "models/tiny/1/exports"
PRESET = "TinyCLIP-ViT-8M-16-Text-3M"


def task(folder: Path, **changes: object) -> JSON:
    return {"name": "colors", "kind": "zero_shot", "shards": f"{folder}/val.tar", "classes": list(COLORS), **changes}


def ask(store: ArtifactsStore, format: str = "open_clip", attempt: int = 1, **changes: object) -> None:
    request = {"name": "tiny", "version": 1, "format": format, "attempt": attempt, **changes}
    store.write_bytes(f"exports/{ID}/request.json", json.dumps(request).encode())


def run(store: ArtifactsStore, attempt: int = 1) -> int:
    return jobs.main(["export", "--artifacts", store.root, "--export", ID, "--attempt", str(attempt)])


def events(store: ArtifactsStore, attempt: int = 1) -> list[JSON]:
    folder = f"exports/{ID}/attempts/{attempt}/events"
    lines = [line for name in store.list(folder) for line in store.read_bytes(f"{folder}/{name}").splitlines()]
    return [event for event in map(json.loads, lines) if event["type"] != "log"]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    write_shard(tmp_path / "val.tar", color_samples(20))
    made = ArtifactsStore(str(tmp_path / "store"))
    write_model(made, loaded(LAYOUTS["vit"]))
    return made


@pytest.mark.parametrize("remote", [False, True])
def test_the_files_are_those_of_the_document_and_it_is_told(tmp_path: Path, store: ArtifactsStore, remote: bool) -> None:
    if remote:
        store = ArtifactsStore(f"memory://{tmp_path.name}")
        write_model(store, loaded(LAYOUTS["vit"]))
    ask(store, "hf", tasks=[task(tmp_path)])

    assert run(store) == 0

    told = events(store)
    assert [event["type"] for event in told] == ["export.progress"] * 4 + ["export.finished"]
    fractions = [event["data"]["fraction"] for event in told[:-1]]
    assert fractions == sorted(fractions)
    written = store.read_bytes(f"{TARGET}/hf/export.json")
    document = ExportDocument.model_validate_json(written)
    assert told[-1]["data"] == json.loads(written)
    assert {file.path for file in document.files} | {"export.json"} == set(store.list(f"{TARGET}/hf"))
    for file in document.files:
        data = store.read_bytes(f"{TARGET}/hf/{file.path}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert (document.model, document.check.data, document.check.pictures) == ("tiny@1", "evaluation task colors", 4)
    assert document.check.texts == 4  # one prompt a class
    assert document.made_with["transformers"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_what_a_kill_leaves_is_no_export_and_the_next_attempt_makes_it(
    store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    whole, done = ArtifactsStore.write_bytes, []

    def killed(self: ArtifactsStore, path: str, data: bytes) -> None:
        if path.startswith(TARGET):
            if len(done) == written:
                raise KeyboardInterrupt
            done.append(path)
        whole(self, path, data)

    ask(store)
    monkeypatch.setattr(ArtifactsStore, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        run(store)
    assert not store.exists(f"{TARGET}/open_clip/export.json")
    monkeypatch.setattr(ArtifactsStore, "write_bytes", whole)
    store.write_bytes(f"{TARGET}/open_clip/of-an-older-tinyclip.bin", b"left by a kill")
    ask(store, attempt=2)

    assert run(store, attempt=2) == 0

    document = ExportDocument.model_validate_json(store.read_bytes(f"{TARGET}/open_clip/export.json"))
    assert {file.path for file in document.files} | {"export.json"} == set(store.list(f"{TARGET}/open_clip"))


def test_an_attempt_that_finds_an_export_only_tells_of_it(store: ArtifactsStore) -> None:
    ask(store)
    run(store)
    found = store.read_bytes(f"{TARGET}/open_clip/export.json")
    ask(store, attempt=2)

    assert run(store, attempt=2) == 0

    assert store.read_bytes(f"{TARGET}/open_clip/export.json") == found
    assert [(event["type"], event["data"]) for event in events(store, 2)] == [("export.finished", json.loads(found))]


@pytest.mark.parametrize("gone", ["deleted", "overtaken"])
def test_one_that_is_not_wanted_any_more_writes_nothing(
    store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    caplog.set_level(logging.INFO, "tinyclip_workers")
    make = exporting.make_export

    def meanwhile(*args: object, **kwargs: object) -> ExportDocument:
        document = make(*args, **kwargs)  # type: ignore[arg-type]
        ask(store, attempt=2) if gone == "overtaken" else store.remove(f"exports/{ID}/request.json")
        return document

    ask(store)
    monkeypatch.setattr(exporting, "make_export", meanwhile)

    assert run(store) == 0

    assert store.list(TARGET) == []
    assert "export.finished" not in [event["type"] for event in events(store)]


def test_one_that_was_deleted_before_it_began_leaves_no_folder(store: ArtifactsStore) -> None:
    assert run(store) == 0

    assert not store.exists(f"exports/{ID}")


@pytest.mark.parametrize(
    ("kind", "changes", "code", "says"),
    [
        ("resnet", {"format": "hf"}, "format_not_available", "tiny@1 has no hf export: its image tower is a ResNet"),
        ("folded", {"format": "open_clip"}, "format_not_available", "it has onnx, openvino"),
        ("vit", {"version": 7}, "unreadable_model", "tiny@7: "),
    ],
)
def test_what_cannot_be_exported_says_why_and_writes_nothing(
    store: ArtifactsStore, kind: str, changes: JSON, code: str, says: str
) -> None:
    store.remove("models")
    write_model(store, loaded(LAYOUTS[kind]))
    ask(store, **{"format": "onnx", **changes})

    assert run(store) == 1

    last = events(store)[-1]
    assert (last["type"], last["data"]) == ("export.failed", {"code": code})
    assert says in last["message"]
    assert store.list(TARGET) == []


def test_an_export_that_is_off_fails_in_words(store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyclip_workers.exporting.formats import open_clip as export_open_clip

    whole = export_open_clip.preprocess_cfg
    monkeypatch.setattr(export_open_clip, "preprocess_cfg", lambda model: {**whole(model), "mean": [0.1, 0.1, 0.1]})
    ask(store)

    assert run(store) == 1

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
        write_model(store, loaded(LAYOUTS["vit"]), spec=spec)
        ask(store)

        run(store)

        check = events(store)[-1]["data"]["check"]
        assert (check["data"], check["pictures"], check["texts"]) == ("training data", 4, 20)

    def test_calibration_pictures_are_others_than_those_of_the_evaluation(self, tmp_path: Path) -> None:
        evaluated = ZeroShotTask.model_validate(task(tmp_path))
        write_shard(tmp_path / "val.tar", color_samples(20))
        training = TrainData(shards=write_shard(tmp_path / "train.tar", color_samples(30, start=40)))
        kept = [Image.new("RGB", (32, 32), "pink")] * 8

        found, without, alone = gather([evaluated], training, kept), gather([evaluated], None, kept), gather([evaluated], None)

        assert [len(each.checked) for each in (found, without, alone)] == [4, 4, 4]
        assert [len(each.calibration) for each in (found, without, alone)] == [30, 8, 16]
        checked = {picture.tobytes() for picture in found.checked}
        assert not checked & {picture.tobytes() for each in (found, alone) for picture in each.calibration}

    def test_are_the_version_s_own_where_its_data_cannot_be_read(self) -> None:
        kept = [Image.new("RGB", (32, 32), (number, 0, 0)) for number in range(20)]

        found = gather([], TrainData(shards="/nowhere/a.tar"), kept)

        assert (found.source, len(found.checked), len(found.calibration)) == ("the version's calibration pictures", 4, 16)

    def test_are_drawn_where_nothing_can_be_read_and_always_the_same(self) -> None:
        first, again = drawn(), gather([], None)

        assert first.source.startswith("drawn pictures: no evaluation task")
        assert (len(first.checked), len(first.calibration)) == (CHECKED, CALIBRATION)
        assert [picture.tobytes() for picture in first.checked] == [picture.tobytes() for picture in again.checked]
        everything = [picture.tobytes() for picture in [*first.checked, *first.calibration]]
        assert len(set(everything)) == CHECKED + CALIBRATION
        assert len(set(first.texts)) == len(first.texts) == 256
