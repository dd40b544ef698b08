"""The job that makes a reinforcement: its result, and kills at any point of it."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load
from tinyclip.artifacts.documents import ReinforcementDocument
from tinyclip.artifacts.paths import reinforcement_images, reinforcement_texts
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import ReinforcementPost
from tinyclip_workers import jobs
from tinyclip_workers.data.augment import crop_of
from tinyclip_workers.data.decoding import decode_crops
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.samples import captions_of, image_bytes
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.precision import FP32
from tinyclip_workers.training.teachers.encoder import TeacherEncoder

from tests.workers.killed_jobs import kill_at
from tests.workers.ray_jobs import RAY_MARKS
from tests.workers.ray_workers import kill_ray_processes
from tests.workers.registered import events_of, register, reinforcement_arguments, request_reinforcement
from tests.workers.shapes_data import write_shards

pytestmark = RAY_MARKS

MAX_ACTORS = "tinyclip_workers.reinforcing.pool.MAX_ACTORS"
POST: dict[str, Any] = {"augmentations": 3, "augment": {"crop_scale": (0.5, 1.0), "color_jitter": 0.2, "horizontal_flip": 0.5}}


class Reinforced:
    """A store with a registered data set and a request for a reinforcement of it."""

    def __init__(self, root: Path, shards: str, **post: Any) -> None:
        self.root, self.store = root, ArtifactsStore(str(root))
        self.version = register(self.store, shards, caption_key="json.captions", holdout=0.2)
        self.post = POST | post
        self.folder = request_reinforcement(self.store, **self.post)

    def run(self, attempt: int = 1, actors: int = 1) -> int:
        """`actors`: at most so many, each of which takes seconds to start."""
        request_reinforcement(self.store, attempt, **self.post)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MAX_ACTORS, actors)
            return jobs.main(reinforcement_arguments(self.root, attempt))

    def files(self) -> dict[str, bytes]:
        """Return the files of the result."""
        found = [file.path for file in self.store.find(self.folder)]
        kept = [path for path in found if "/attempts/" not in path and not path.endswith("/request.json")]
        return {path: self.store.read_bytes(path) for path in kept}

    def document(self) -> ReinforcementDocument:
        return StoredReinforcement.open(self.store, self.folder).document


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, shards: str, teacher: str) -> Reinforced:
    """An undisturbed reinforcement, by several actors."""
    reinforced = Reinforced(tmp_path_factory.mktemp("whole"), shards, teacher={"model": teacher})
    assert reinforced.run(actors=2) == 0
    return reinforced


def test_views_and_captions_have_the_teachers_embeddings(whole: Reinforced, teacher: str) -> None:
    stored = StoredReinforcement.open(whole.store, whole.folder)
    post = ReinforcementPost.model_validate(whole.post)
    encoder = TeacherEncoder([load_folder(teacher.removeprefix("local-dir:"))], [1.0], post.augment, torch.device("cpu"), FP32)
    [url, *_] = sorted(Path(whole.version.source.shards).parent.glob("*.tar"))

    compared = 0
    for row, sample in enumerate(read_shard(str(url))):
        if row not in rows_of(whole, 0):
            continue
        data, captions = image_bytes(sample, ["png"]), captions_of(sample, "json.captions")
        for epoch in range(4):
            found = stored.view(0, row, epoch)
            assert found is not None
            view = found.view
            caption = captions[epoch % len(captions)]
            [(image_E, text_E)] = stored.targets(0, row, epoch, caption)
            pixels = decode_crops(data, encoder.pixels, lambda *_, view=view: crop_of(view))  # type: ignore[misc]
            [expected_image_BE] = encoder.encode_images([pixels], [view])
            [expected_text_BE] = encoder.encode_texts([caption])
            assert torch.cosine_similarity(image_E.float(), expected_image_BE[0], dim=0) > 0.9999
            assert torch.cosine_similarity(text_E.float(), expected_text_BE[0], dim=0) > 0.9999
        first, second, _, fourth = (stored.view(0, row, epoch) for epoch in range(4))
        assert first is not None
        assert second is not None
        assert fourth is not None
        assert np.array_equal(first.view, fourth.view)
        assert not np.array_equal(first.view, second.view)
        compared += 1
    assert compared == len(rows_of(whole, 0)) > 20


def rows_of(reinforced: Reinforced, shard: int) -> list[int]:
    rows: list[int] = load(reinforced.store.read_bytes(reinforcement_images(reinforced.folder, shard)))["rows"].tolist()
    return rows


def test_each_text_is_stored_once(whole: Reinforced) -> None:
    texts = {
        caption
        for url in sorted(Path(whole.version.source.shards).parent.glob("*.tar"))
        for row, sample in enumerate(read_shard(str(url)))
        for caption in captions_of(sample, "json.captions")
        if row in rows_of(whole, int(url.stem.split("-")[1]))
    }
    files = [load(whole.store.read_bytes(reinforcement_texts(whole.folder, shard))) for shard in range(6)]

    assert sum(len(file["text.0"]) for file in files) == len(texts) == whole.document().texts
    assert len(files[0]["text.0"]) > len(files[5]["text.0"])


def test_the_document_has_the_counts(whole: Reinforced) -> None:
    document = whole.document()

    assert document.samples == whole.version.pairs < whole.version.samples
    assert document.views == 3 * document.samples
    assert document.bytes == sum(len(data) for path, data in whole.files().items() if path.endswith(".safetensors"))
    assert (document.digest, document.dtype, document.precision) == (whole.version.digest, "bf16", "fp32")
    [finished] = [event for event in events_of(whole.store, whole.folder) if event["type"] == "reinforcement.finished"]
    assert finished["data"]["views"] == document.views
    assert finished["data"]["seconds"] > 0
    assert not any("/work/" in path for path in whole.files())


def test_a_finished_reinforcement_is_reported_again(whole: Reinforced) -> None:
    before = whole.files()

    assert whole.run(attempt=2) == 0
    assert whole.files() == before
    assert [event["type"] for event in events_of(whole.store, whole.folder, 2)] == ["reinforcement.finished"]


STORE = "tinyclip.artifacts.store.ArtifactsStore"
KILLS = [
    pytest.param(f"{STORE}.write_bytes", False, "/work/plan.json", id="before the plan", marks=pytest.mark.long),
    pytest.param("tinyclip_workers.reinforcing.job._Reinforcing._report", False, "samples", id="while shards are encoded",
                 marks=pytest.mark.long),
    pytest.param("tinyclip_workers.reinforcing.job.part_count", False, "", id="before texts are merged", marks=pytest.mark.long),
    pytest.param("tinyclip_workers.reinforcing.progress.final_groups", False, "", id="after the first step of merging"),
    pytest.param(f"{STORE}.write_bytes", False, "/reinforcement.json", id="before the document", marks=pytest.mark.long),
    pytest.param(f"{STORE}.write_bytes", True, "/reinforcement.json", id="after the document", marks=pytest.mark.long),
    pytest.param(f"{STORE}.remove", True, "/work", id="before the last event", marks=pytest.mark.long),
]
"""Where a job is killed: at a call or after it, with an argument that contains a text."""


@pytest.mark.parametrize(("target", "after", "path"), KILLS)
def test_a_driver_that_is_killed_continues(
    target: str, after: bool, path: str, whole: Reinforced, tmp_path: Path, shards: str, teacher: str
) -> None:
    reinforced = Reinforced(tmp_path / "store", shards, teacher={"model": teacher})
    environment = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    settings = {"tinyclip_workers.reinforcing.pool.PROGRESS_SECONDS": 0.0, MAX_ACTORS: 1}

    kill_at(
        reinforcement_arguments(reinforced.root), tmp_path / "reached", target,
        after=after, path=path, settings=settings, environment=environment,
    )  # fmt: skip

    assert reinforced.run(attempt=2) == 0
    assert reinforced.files() == whole.files()


@pytest.mark.long
def test_an_actor_that_is_killed_is_replaced(whole: Reinforced, tmp_path: Path, shards: str, teacher: str) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": teacher})
    killed, ended = list[int](), threading.Event()

    def kill_an_actor() -> None:
        counts = f"{reinforced.folder}/work/shards"
        while not reinforced.store.list(counts):
            time.sleep(0.01)
        while not killed and not ended.is_set():
            killed.extend(kill_ray_processes("EncoderActor.encode"))

    thread = threading.Thread(target=kill_an_actor, daemon=True)
    thread.start()
    status = reinforced.run(actors=2)
    ended.set()
    thread.join()

    assert status == 0
    assert killed
    messages = [event["message"] for event in events_of(reinforced.store, reinforced.folder)]
    assert any("an actor was lost" in message for message in messages)
    assert reinforced.files() == whole.files()


def test_a_superseded_attempt_stops(tmp_path: Path, shards: str, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": teacher})
    monkeypatch.setattr("tinyclip_workers.reinforcing.job.WANTED_SECONDS", 0.0)
    monkeypatch.setattr("tinyclip_workers.reinforcing.pool.PROGRESS_SECONDS", 0.0)
    request_reinforcement(reinforced.store, 2, **reinforced.post)

    assert jobs.main(reinforcement_arguments(tmp_path, 1)) == 0
    assert not any(path.endswith("reinforcement.json") for path in reinforced.files())


def test_unreadable_samples_are_counted(tmp_path: Path, teacher: str, ray_cluster: None) -> None:
    pattern = write_shards(tmp_path / "data", shards=1, pairs=8)
    path = tmp_path / "data" / "train-000000.tar"
    data = path.read_bytes()
    at = data.index(b"IDAT", data.index(b"IDAT") + 4)  # the pixels of the second image
    path.write_bytes(data[: at + 4] + b"\xff" * 16 + data[at + 20 :])
    reinforced = Reinforced(tmp_path / "store", pattern, teacher={"model": teacher})

    assert reinforced.run() == 0
    document = reinforced.document()
    assert document.skipped == 1
    assert document.samples == reinforced.version.pairs - 1


def test_a_shard_that_has_changed_is_refused(tmp_path: Path, teacher: str, ray_cluster: None) -> None:
    pattern = write_shards(tmp_path / "data", shards=1, pairs=8)
    reinforced = Reinforced(tmp_path / "store", pattern, teacher={"model": teacher})
    write_shards(tmp_path / "data", shards=1, pairs=8, size=40)

    assert reinforced.run() == 1
    [failed] = [event for event in events_of(reinforced.store, reinforced.folder) if event["type"] == "reinforcement.failed"]
    assert failed["data"]["code"] == "unusable_data"
    assert "has changed" in failed["message"]


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, shards: str, ray_cluster: None) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": f"local-dir:{tmp_path}/nowhere"})

    assert reinforced.run() == 1
    [failed] = [event for event in events_of(reinforced.store, reinforced.folder) if event["type"] == "reinforcement.failed"]
    assert (failed["data"]["code"], failed["data"]["pointer"]) == ("unusable_teacher", "/teacher/model")


@pytest.mark.parametrize("dtype", [pytest.param("fp32", marks=pytest.mark.long), "int8"])
def test_other_types(dtype: str, whole: Reinforced, tmp_path: Path, shards: str, teacher: str) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": teacher}, dtype=dtype, captions="first")
    assert reinforced.run() == 0
    stored, before = (StoredReinforcement.open(each.store, each.folder) for each in (reinforced, whole))

    [url, *_] = sorted(Path(whole.version.source.shards).parent.glob("*.tar"))
    for row, sample in enumerate(read_shard(str(url))):
        if row in rows_of(whole, 0):
            caption, other = captions_of(sample, "json.captions")
            for own, expected in zip(stored.targets(0, row, 1, caption)[0], before.targets(0, row, 1, caption)[0], strict=True):
                assert torch.cosine_similarity(own, expected.float(), dim=0) > 0.9995
            with pytest.raises(ValueError, match="has no embeddings of a caption"):
                stored.targets(0, row, 1, other)
    assert json.loads(reinforced.files()[f"{reinforced.folder}/reinforcement.json"])["dtype"] == dtype
