"""Changing an index item by item: what a search sees is what plain recomputation over all words said so far gives."""

import base64
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip.schemas import JSON
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import merging, updating
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import open_index
from tinyclip_workers.serving.replica import indexes as serving_indexes
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.s3 import BUCKET, bucket_files, s3_server
from tests.workers.index_jobs import ask, ask_updates, current, events, generation, run, unit
from tests.workers.students import encoded, random_image, square_of


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    """A store with an empty index."""
    ask(tmp_path, folder, None)
    assert run(tmp_path) == 0
    return tmp_path


def vectors(rows: Any, first: int = 0, **metadata: Any) -> list[JSON]:
    return [
        {"id": f"v{first + i}", "vector": row.tolist(), "metadata": {"n": first + i, **metadata}} for i, row in enumerate(rows)
    ]


def update(root: Path, folder: Path, number: int, items: list[JSON] = [], removed: list[str] = [], **changes: Any) -> Generation:  # noqa: B006
    ask_updates(root, folder, {number: {"items": items, "removed": removed}}, **changes)
    assert run(root, f"u{number}") == 0
    return generation(root)


def test_an_empty_index_finds_nothing(root: Path) -> None:
    found = current(root).nearest(np.ones(24, np.float32), 5)

    assert (found.hits, generation(root).count, generation(root).kind) == ([], 0, "exact")


def test_pictures_texts_and_vectors_are_found_by_themselves(root: Path, folder: Path, engine: Engine) -> None:
    image = base64.b64encode(encoded(random_image(3))).decode()
    items = [
        {"id": "picture", "image": image, "metadata": {"a": {"b": [1, 2]}}},
        {"id": "uri", "image": f"data:image/png;base64,{image}"},
        {"id": "text", "text": "a cat"}, {"id": "vector", "vector": [3.0] + [0.0] * 23},
    ]  # fmt: skip

    update(root, folder, 1, items)

    index = current(root)
    by_picture = index.nearest(engine.encode_image(square_of(random_image(3))[None])[0], 2).hits
    assert [hit.id for hit in by_picture] == ["picture", "uri"]
    assert by_picture[0].metadata == {"a": {"b": [1, 2]}}
    assert index.nearest(engine.encode_text(["a cat"])[0], 1).hits[0].id == "text"
    nearest = index.nearest(np.eye(24, dtype=np.float32)[0], 1).hits[0]
    assert (nearest.id, nearest.score) == ("vector", pytest.approx(1))


def test_what_cannot_be_embedded_is_told_and_the_rest_applied(root: Path, folder: Path) -> None:
    update(root, folder, 1, vectors(unit(1, 24)))
    bad = base64.b64encode(b"no picture").decode()

    done = update(root, folder, 2, [{"id": "v0", "image": bad}, {"id": "short", "vector": [1.0]}, {"id": "good", "text": "a"}])

    assert {(item.id, item.update) for item in done.rejected} == {("v0", 2), ("short", 2)}
    assert "1 numbers and the model's embeddings have 24" in next(item.reason for item in done.rejected if item.id == "short")
    assert {hit.id for hit in current(root).nearest(np.ones(24, np.float32), 9).hits} == {"v0", "good"}
    assert events(root, "u2")[-1]["data"]["rejected"] == [item.model_dump() for item in done.rejected]


def test_a_bad_replacement_leaves_the_word_before_it(root: Path, folder: Path) -> None:
    row = unit(24)
    ask_updates(root, folder, {
        1: {"items": [{"id": "a", "vector": row.tolist()}, {"id": "b", "vector": row.tolist()}]}, 2: {"removed": ["b"]},
        3: {"items": [{"id": "a", "image": "!"}, {"id": "b", "image": "!"}]},
    })  # fmt: skip

    assert run(root, "u3") == 0

    assert [hit.id for hit in current(root).nearest(row, 9).hits] == ["a"]


def test_an_update_is_applied_once(root: Path, folder: Path) -> None:
    update(root, folder, 1, vectors(unit(3, 24)))
    update(root, folder, 2, [], ["v0"])
    again = update(root, folder, 1, vectors(unit(3, 24)))

    assert (again.number, again.count, again.applied) == (3, 2, 2)
    assert list((root / "indexes/gallery/updates").iterdir()) == []


def test_many_updates_are_applied_in_rounds(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_workers.retrieval.updating.BATCH_BYTES", 1)
    ask_updates(root, folder, {n: {"items": vectors(unit(2, 24, seed=n), first=n)} for n in (1, 2, 3)})

    assert run(root, "u3") == 0

    told = [event["data"] for event in events(root, "u3") if event["type"] == "index.updated"]
    assert [(data["applied"], data["count"], data["last"]) for data in told] == [(1, 2, False), (2, 3, False), (3, 4, True)]
    assert generation(root).number == 4


def test_an_index_that_was_deleted_meanwhile_stays_away(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "next_generation", _deleted_meanwhile(root, updating.next_generation))
    ask_updates(root, folder, {1: {"items": vectors(unit(2, 24))}})

    assert run(root, "u1") == 0

    assert not (root / "indexes/gallery/generations").exists()


def _deleted_meanwhile(root: Path, write: Any) -> Any:
    def deleted(*arguments: Any) -> Any:
        written = write(*arguments)
        shutil.rmtree(root / "indexes/gallery")
        return written

    return deleted


def test_updates_of_another_build_change_nothing(root: Path, folder: Path) -> None:
    ask_updates(root, folder, {1: {"removed": ["x"]}}, build=7)

    assert run(root, "u1") == 0

    assert generation(root).number == 1


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_any_history_gives_what_recomputation_gives(root: Path, folder: Path, kind: str) -> None:
    """Forty updates of many sizes, replacing and removing: hits and scores as of a dictionary of what was said last."""
    if kind == "hnsw":
        pytest.importorskip("hnswlib", reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib")
    chance = np.random.default_rng(5)
    known: dict[str, Any] = {}
    sizes = []
    for number in range(1, 41):
        ids = chance.choice(400, chance.integers(1, 60), replace=False)
        rows = unit(len(ids), 24, seed=number)
        removed = [f"v{id}" for id in chance.choice(400, chance.integers(0, 30), replace=False) if id not in ids]
        items = [{"id": f"v{id}", "vector": row.tolist(), "metadata": {"n": number}} for id, row in zip(ids, rows, strict=True)]
        done = update(root, folder, number, items, removed, kind=kind)
        known = {id: row for id, row in known.items() if id not in removed}
        known |= {f"v{id}": row for id, row in zip(ids, rows, strict=True)}
        sizes.append(len(done.segments))
        assert done.count == len(known)
        for segment, after in zip(done.segments, done.segments[1:], strict=False):
            assert segment.live >= merging.SEGMENT_GROWTH * after.live or segment.dead_count
    names, matrix = list(known), np.stack(list(known.values()))

    index = current(root)
    shares = []
    for query in unit(20, 24, seed=99):
        found = index.nearest(query, 10)
        truth = [names[i] for i in np.argsort(-(matrix @ query), kind="stable")[:10]]
        scores = [known[hit.id] @ query for hit in found.hits]
        np.testing.assert_allclose([hit.score for hit in found.hits], scores, atol=1e-5)
        assert found.kind == kind
        shares.append(len({hit.id for hit in found.hits} & set(truth)) / 10)
    assert np.mean(shares) >= (0.95 if kind == "hnsw" else 1.0)
    assert max(sizes) > 1, "nothing was ever merged here"
    assert max(sizes) <= 6


def test_an_open_reader_keeps_its_generation_and_shares_what_stays(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_indexes, "REFRESH_SECONDS", 0.0)
    update(root, folder, 1, vectors(unit(100, 24)))
    indexes = Indexes(str(root))
    before = indexes.get("gallery", "student@1")
    update(root, folder, 2, vectors(unit(1, 24, seed=9), first=100), ["v0"])

    after = indexes.get("gallery", "student@1")

    assert len(before.nearest(np.ones(24, np.float32), 1000).hits) == 100
    assert len(after.nearest(np.ones(24, np.float32), 1000).hits) == 100
    assert {hit.id for hit in after.nearest(np.ones(24, np.float32), 1000).hits} == {f"v{i}" for i in range(1, 101)}
    assert after.segments[0] is before.segments[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_of_large_graphs_one_is_held_at_a_time(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    pytest.importorskip("hnswlib", reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib")
    monkeypatch.setattr(serving_indexes, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(serving_indexes, "MAX_BYTES_HELD_TWICE", room)
    update(root, folder, 1, vectors(unit(100, 24)), kind="hnsw")
    indexes = Indexes(str(root))
    old = weakref.ref(indexes.get("gallery", "student@1").segments[0])  # type: ignore[attr-defined]
    held: list[bool] = []
    monkeypatch.setattr(
        serving_indexes, "open_index", lambda *arguments: held.append(old() is not None) or open_index(*arguments)
    )
    update(root, folder, 2, vectors(unit(100, 24, seed=1)), kind="hnsw")

    found = indexes.get("gallery", "student@1").nearest(unit(100, 24, seed=1)[5], 1)

    assert (found.hits[0].id, found.kind) == ("v5", "hnsw")
    assert held == [room > 0]


def test_a_build_leaves_what_was_applied_and_takes_what_comes_after(root: Path, folder: Path) -> None:
    update(root, folder, 1, vectors(unit(3, 24)))
    ask(root, folder, None, build=2, applied=1)
    assert run(root, 2) == 0
    assert (generation(root).count, generation(root).applied) == (0, 1)

    done = update(root, folder, 2, vectors(unit(2, 24)), build=2)

    assert (done.count, done.applied, done.build) == (2, 2, 2)


def test_on_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        root = f"s3://{BUCKET}/artifacts"
        ask(root, folder, None)
        assert run(root) == 0
        ask_updates(root, folder, {1: {"items": vectors(unit(50, 24))}, 2: {"removed": ["v0"]}})
        assert run(root, "u2") == 0
        ask_updates(root, folder, {3: {"items": vectors(unit(2, 24, seed=1))}})
        assert run(root, "u3") == 0

        found = current(root).nearest(unit(2, 24, seed=1)[1], 1000).hits
        files = [path.partition("gallery/")[2] for path in bucket_files(environment).find(f"{BUCKET}/artifacts")]

    assert (found[0].id, len(found)) == ("v1", 50)
    assert generation_names(files) == ["generations/000000003.json"]
    assert len({path.split("/")[1] for path in files if path.startswith("segments/")}) == 2


def generation_names(files: list[str]) -> list[str]:
    return [path for path in files if path.startswith("generations/")]
