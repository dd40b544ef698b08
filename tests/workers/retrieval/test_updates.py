"""Updates of an index: searches give what brute force over the current items gives."""

import base64
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import merging, updating
from tinyclip_workers.retrieval.reader import FilesReader, open_index
from tinyclip_workers.serving.replica import indexes as serving_indexes
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.s3 import BUCKET, bucket_files, s3_server
from tests.workers.index_jobs import (
    History,
    job_events,
    newest_generation,
    open_reader,
    request_build,
    request_updates,
    run_job,
    unit_vectors,
    update,
    vector_items,
)
from tests.workers.students import base64_image, random_image, square_of


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    """A store with an empty index."""
    request_build(tmp_path, folder, None)
    assert run_job(tmp_path) == 0
    return tmp_path


def test_an_empty_index_finds_nothing(root: Path) -> None:
    found = open_reader(root).nearest(np.ones(24, np.float32), 5)

    assert (found.hits, newest_generation(root).count, newest_generation(root).kind) == ([], 0, "exact")


def test_images_texts_and_vectors_are_found(root: Path, folder: Path, engine: Engine) -> None:
    image = base64_image(3)
    items = [
        {"id": "image", "image": image, "metadata": {"a": {"b": [1, 2]}}},
        {"id": "uri", "image": f"data:image/png;base64,{image}"},
        {"id": "text", "text": "a cat"}, {"id": "vector", "vector": [3.0] + [0.0] * 23},
    ]  # fmt: skip

    update(root, folder, 1, items)

    index = open_reader(root)
    by_image = index.nearest(engine.encode_image(square_of(random_image(3))[None])[0], 2).hits
    assert [hit.id for hit in by_image] == ["image", "uri"]
    assert by_image[0].metadata == {"a": {"b": [1, 2]}}
    assert index.nearest(engine.encode_text(["a cat"])[0], 1).hits[0].id == "text"
    nearest = index.nearest(np.eye(24, dtype=np.float32)[0], 1).hits[0]
    assert (nearest.id, nearest.score) == ("vector", pytest.approx(1))


def test_items_that_cannot_be_embedded_are_rejected_and_reported(root: Path, folder: Path) -> None:
    update(root, folder, 1, vector_items(unit_vectors(1, 24)))
    bad = base64.b64encode(b"no image").decode()

    done = update(root, folder, 2, [{"id": "v0", "image": bad}, {"id": "short", "vector": [1.0]}, {"id": "good", "text": "a"}])

    assert {(item.id, item.update) for item in done.rejected} == {("v0", 2), ("short", 2)}
    assert "1 numbers and the model's embeddings have 24" in next(item.reason for item in done.rejected if item.id == "short")
    assert {hit.id for hit in open_reader(root).nearest(np.ones(24, np.float32), 9).hits} == {"v0", "good"}
    assert job_events(root, "u2")[-1]["data"]["rejected"] == [item.model_dump() for item in done.rejected]


def test_a_rejected_replacement_keeps_the_entry_before_it(root: Path, folder: Path) -> None:
    row = unit_vectors(24)
    request_updates(root, folder, {
        1: {"items": [{"id": "a", "vector": row.tolist()}, {"id": "b", "vector": row.tolist()}]}, 2: {"removed": ["b"]},
        3: {"items": [{"id": "a", "image": "!"}, {"id": "b", "image": "!"}]},
    })  # fmt: skip

    assert run_job(root, "u3") == 0

    assert [hit.id for hit in open_reader(root).nearest(row, 9).hits] == ["a"]


def test_an_update_is_applied_once(root: Path, folder: Path) -> None:
    update(root, folder, 1, vector_items(unit_vectors(3, 24)))
    update(root, folder, 2, [], ["v0"])
    again = update(root, folder, 1, vector_items(unit_vectors(3, 24)))

    assert (again.number, again.count, again.applied) == (3, 2, 2)
    assert list((root / "indexes/gallery/updates").iterdir()) == []


def test_many_updates_are_applied_in_batches(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_workers.retrieval.updating.BATCH_BYTES", 1)
    request_updates(root, folder, {n: {"items": vector_items(unit_vectors(2, 24, seed=n), first=n)} for n in (1, 2, 3)})

    assert run_job(root, "u3") == 0

    updated = [event["data"] for event in job_events(root, "u3") if event["type"] == "index.updated"]
    assert [(data["applied"], data["count"], data["last"]) for data in updated] == [(1, 2, False), (2, 3, False), (3, 4, True)]
    assert newest_generation(root).number == 4


def test_an_index_deleted_during_an_update_is_not_recreated(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "next_generation", _deleted_meanwhile(root, updating.next_generation))
    request_updates(root, folder, {1: {"items": vector_items(unit_vectors(2, 24))}})

    assert run_job(root, "u1") == 0

    assert not (root / "indexes/gallery/generations").exists()


def _deleted_meanwhile(root: Path, write: Any) -> Any:
    def deleted(*arguments: Any) -> Any:
        written = write(*arguments)
        shutil.rmtree(root / "indexes/gallery")
        return written

    return deleted


def test_updates_of_another_build_change_nothing(root: Path, folder: Path) -> None:
    request_updates(root, folder, {1: {"removed": ["x"]}}, build=7)

    assert run_job(root, "u1") == 0

    assert newest_generation(root).number == 1


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_a_long_history_gives_the_results_of_brute_force(root: Path, folder: Path, kind: str) -> None:
    if kind == "hnsw":
        pytest.importorskip("hnswlib", reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib")
    history, sizes = History(ids=400), []
    for number in range(1, 41):
        done = update(root, folder, number, *history.next_update(number), kind=kind)
        sizes.append(len(done.segments))
        assert done.count == len(history.vectors)
        for segment, later in zip(done.segments, done.segments[1:], strict=False):
            assert segment.live >= merging.SEGMENT_GROWTH * later.live or segment.dead_count

    history.check(open_reader(root), kind)
    assert max(sizes) > 1, "no segments were merged"
    assert max(sizes) <= 6


def test_an_open_reader_keeps_its_generation_and_shares_segments(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_indexes, "REFRESH_SECONDS", 0.0)
    update(root, folder, 1, vector_items(unit_vectors(100, 24)))
    indexes = Indexes(str(root))
    before = indexes.get("gallery", "student@1")
    assert isinstance(before, FilesReader)
    update(root, folder, 2, vector_items(unit_vectors(1, 24, seed=9), first=100), ["v0"])

    after = indexes.get("gallery", "student@1")

    assert isinstance(after, FilesReader)
    assert len(before.nearest(np.ones(24, np.float32), 1000).hits) == 100
    assert len(after.nearest(np.ones(24, np.float32), 1000).hits) == 100
    assert {hit.id for hit in after.nearest(np.ones(24, np.float32), 1000).hits} == {f"v{i}" for i in range(1, 101)}
    assert after.segments[0] is before.segments[0]


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_only_one_large_graph_is_in_memory(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib")
    monkeypatch.setattr(serving_indexes, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(serving_indexes, "MAX_BYTES_HELD_TWICE", room)
    update(root, folder, 1, vector_items(unit_vectors(100, 24)), kind="hnsw")
    indexes = Indexes(str(root))
    old = weakref.ref(indexes.get("gallery", "student@1").segments[0])  # type: ignore[attr-defined]
    held: list[bool] = []
    monkeypatch.setattr(
        serving_indexes, "open_index", lambda *arguments: held.append(old() is not None) or open_index(*arguments)
    )
    update(root, folder, 2, vector_items(unit_vectors(100, 24, seed=1)), kind="hnsw")

    found = indexes.get("gallery", "student@1").nearest(unit_vectors(100, 24, seed=1)[5], 1)

    assert (found.hits[0].id, found.kind) == ("v5", "hnsw")
    assert held == [room > 0]


def test_a_build_keeps_the_number_of_applied_updates(root: Path, folder: Path) -> None:
    update(root, folder, 1, vector_items(unit_vectors(3, 24)))
    request_build(root, folder, None, build=2, applied=1)
    assert run_job(root, 2) == 0
    assert (newest_generation(root).count, newest_generation(root).applied) == (0, 1)

    done = update(root, folder, 2, vector_items(unit_vectors(2, 24)), build=2)

    assert (done.count, done.applied, done.build) == (2, 2, 2)


def test_on_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        root = f"s3://{BUCKET}/artifacts"
        request_build(root, folder, None)
        assert run_job(root) == 0
        request_updates(root, folder, {1: {"items": vector_items(unit_vectors(50, 24))}, 2: {"removed": ["v0"]}})
        assert run_job(root, "u2") == 0
        request_updates(root, folder, {3: {"items": vector_items(unit_vectors(2, 24, seed=1))}})
        assert run_job(root, "u3") == 0

        found = open_reader(root).nearest(unit_vectors(2, 24, seed=1)[1], 1000).hits
        files = [path.partition("gallery/")[2] for path in bucket_files(environment).find(f"{BUCKET}/artifacts")]

    assert (found[0].id, len(found)) == ("v1", 50)
    assert [path for path in files if path.startswith("generations/")] == ["generations/000000003.json"]
    assert len({path.split("/")[1] for path in files if path.startswith("segments/")}) == 2
