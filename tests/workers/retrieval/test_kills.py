"""Jobs killed with SIGKILL: an index is at the old or the new generation, and completed work is not repeated."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import building, parts

from tests.workers.index_jobs import job_events, newest_generation, open_reader, request_build, request_updates, run_job
from tests.workers.killed_jobs import kill_job
from tests.workers.students import base64_image, encoded, random_image, square_of, write_shard

OLD, NEW = 20, 150
ONES_E = np.ones(24, np.float32)


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    """A store with an index of 20 images."""
    images = {f"old{i}": {"png": encoded(random_image(i))} for i in range(OLD)}
    request_build(tmp_path, folder, str(write_shard(tmp_path / "old.tar", images)))
    assert run_job(tmp_path) == 0
    return tmp_path


def test_a_killed_build_resumes_after_its_last_part(
    root: Path, folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"k{i:03}": {"png": encoded(random_image(i))} for i in range(NEW)} | {"k000b": {"png": b"no image"}}
    keys = sorted(many)
    for i in range(2):
        write_shard(root / f"many-{i}.tar", {key: many[key] for key in keys[i::2]})
    request_build(root, folder, str(root / "many-{0..1}.tar"), build=2)

    small_parts = {"tinyclip_workers.retrieval.parts.ROWS": 64}
    create = "tinyclip.artifacts.store.ArtifactsStore.create_bytes"
    kill_job(root, "b2", create, after=True, path="parts/000002.npz", settings=small_parts)

    assert newest_generation(root).count == OLD
    assert open_reader(root).nearest(ONES_E, 100).hits[0].id.startswith("old")
    encoded_before = sum(len(_items_of_part(root, number)) for number in (1, 2))
    encoded_again: list[int] = []
    embed = type(engine).encode_image
    monkeypatch.setattr(type(engine), "encode_image", lambda self, batch: encoded_again.append(len(batch)) or embed(self, batch))
    assert run_job(root, 2) == 0
    assert sum(encoded_again) <= NEW - encoded_before
    done = newest_generation(root)
    assert (done.count, done.skipped_samples, done.build) == (NEW, 1, 2)
    found = open_reader(root).nearest(ONES_E, 1000).hits
    assert {hit.id for hit in found} == set(many) - {"k000b"}
    for seed in (0, 63, 64, NEW - 1):
        query = engine.encode_image(square_of(random_image(seed))[None])[0]
        assert open_reader(root).nearest(query, 1).hits[0].id == f"k{seed:03}"


def _items_of_part(root: Path, number: int) -> list[object]:
    part = np.load(root / f"indexes/gallery/builds/2/parts/{number:06d}.npz")
    return list(json.loads(part["document"].tobytes())["items"])


def test_parts_of_changed_shards_are_not_used(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(root / "new.tar", {f"a{i}": {"png": encoded(random_image(i))} for i in range(5)})
    request_build(root, folder, str(shard), build=2)
    monkeypatch.setattr(building, "_write_segment", lambda *_: 1 / 0)
    assert run_job(root, 2) == 1
    monkeypatch.undo()
    write_shard(shard, {f"b{i}": {"png": encoded(random_image(i))} for i in range(6)})

    assert run_job(root, 2) == 0

    assert {hit.id for hit in open_reader(root).nearest(ONES_E, 100).hits} == {f"b{i}" for i in range(6)}


def test_of_two_processes_of_one_build_one_exits(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(root / "new.tar", {f"a{i}": {"png": encoded(random_image(i))} for i in range(5)})
    request_build(root, folder, str(shard), build=2)
    monkeypatch.setattr(parts.EncodedParts, "state", _after_another_process_wrote(parts.EncodedParts.state))

    assert run_job(root, 2) == 0

    assert newest_generation(root).build == 1
    assert [event["type"] for event in job_events(root, 2) if event["type"].startswith("index.f")] == []


State = Callable[[parts.EncodedParts], parts.BuildState]


def _after_another_process_wrote(state: State) -> State:
    def conflicting(mine: parts.EncodedParts) -> parts.BuildState:
        mine._store.create_bytes(mine._path(1), b"theirs")
        return state(mine)

    return conflicting


POINTS = {
    "updates encoded": ("next_generation", False),
    "segment written": ("commit", False),
    "generation committed, not reported": ("commit", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_update_is_applied_once(root: Path, folder: Path, engine: Engine, point: str) -> None:
    items = [{"id": f"new{i}", "image": base64_image(7), "metadata": {"i": i}} for i in range(150)]
    items.append({"id": "old3", "text": "a cat"})
    request_updates(root, folder, {1: {"items": items, "removed": ["old4"]}, 2: {"items": [], "removed": ["new0"]}})
    name, after = POINTS[point]

    kill_job(root, "u2", f"tinyclip_workers.retrieval.updating.{name}", after=after)

    generation = newest_generation(root)
    assert (generation.count, generation.applied) == ((OLD + 148, 2) if after else (OLD, 0))
    hits = open_reader(root).nearest(ONES_E, 1000).hits
    assert len({hit.id for hit in hits}) == len(hits) == generation.count
    assert run_job(root, "u2") == 0
    done = newest_generation(root)
    assert (done.number, done.count, done.applied) == (2, OLD + 148, 2)
    hits = open_reader(root).nearest(engine.encode_text(["a cat"])[0], 1000).hits
    assert len({hit.id for hit in hits}) == len(hits) == OLD + 148
    assert hits[0].id == "old3"
    assert {"old4", "new0"} & {hit.id for hit in hits} == set()
    assert job_events(root, "u2")[-1]["data"]["applied"] == 2
    named = {segment.id for segment in done.segments}
    assert {path.name for path in (root / "indexes/gallery/segments").iterdir()} == named
