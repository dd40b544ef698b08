"""The job that makes a reinforcement: its result, and kills at any point of it."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load
from tinyclip.artifacts.paths import reinforcement_texts
from tinyclip.schemas.datasets import ReinforcementPost
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
from tests.workers.registered import events_of, reinforcement_arguments
from tests.workers.reinforcing.reinforced import MAX_ACTORS, Reinforced, rows_of

pytestmark = RAY_MARKS


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
