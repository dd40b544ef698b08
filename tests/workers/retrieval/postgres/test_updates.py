"""Updates of indexes in PostgreSQL: searches give what brute force over the current items gives."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import DatabaseUnavailable

from tests.workers import index_jobs
from tests.workers.index_jobs import (
    IN_POSTGRES,
    History,
    newest_generation,
    open_reader,
    request_build,
    request_updates,
    run_job,
    unit_vectors,
    vector_items,
)

update = partial(index_jobs.update, **IN_POSTGRES)


@pytest.fixture
def root(tmp_path: Path, folder: Path, index_database: str) -> Path:
    """A store with an empty index in the database."""
    request_build(tmp_path, folder, None, **IN_POSTGRES)
    assert run_job(tmp_path) == 0
    return tmp_path


def test_the_newest_items_are_found(root: Path, folder: Path, engine: Engine) -> None:
    update(root, folder, 1, [*vector_items(unit_vectors(3, 24)), {"id": "text", "text": "a cat"}])
    rows = unit_vectors(2, 24, seed=9)

    done = update(root, folder, 2, vector_items(rows, first=2), ["v0", "unknown"])

    hits = open_reader(root).nearest(engine.encode_text(["a cat"])[0], 9).hits
    assert hits[0].id == "text"
    assert {hit.id for hit in hits} == {"text", "v1", "v2", "v3"}
    assert open_reader(root).nearest(rows[0], 1).hits[0].id == "v2"
    assert (done.number, done.count, done.applied, done.segments[0].count) == (3, 4, 2, 4)


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_a_long_history_gives_the_results_of_brute_force(root: Path, folder: Path, kind: str) -> None:
    history = History(ids=300)
    for number in range(1, 16):
        done = update(root, folder, number, *history.next_update(number), kind=kind)
        assert (done.count, done.kind) == (len(history.vectors), kind)

    history.check(open_reader(root), kind)


def test_items_with_equal_scores_are_in_the_order_of_their_addition(root: Path, folder: Path) -> None:
    row = unit_vectors(24)
    update(root, folder, 1, [{"id": id, "vector": row.tolist()} for id in ("c", "a", "b")])
    update(root, folder, 2, [{"id": "c", "vector": row.tolist()}])

    assert [hit.id for hit in open_reader(root).nearest(row, 9).hits] == ["a", "b", "c"]


def test_the_search_width_is_chosen_again_when_the_index_has_grown(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyclip_workers.retrieval.postgres.updating.MEASURE_FROM", 100)
    small = update(root, folder, 1, vector_items(unit_vectors(60, 24)), kind="hnsw")
    large = update(root, folder, 2, vector_items(unit_vectors(100, 24, seed=1), first=60), kind="hnsw")
    same = update(root, folder, 3, vector_items(unit_vectors(20, 24, seed=2), first=160), kind="hnsw")

    assert (small.recall, small.segments[0].measured) == (None, 0)
    assert large.recall is not None
    assert large.recall >= 0.97
    assert [generation.segments[0].measured for generation in (large, same)] == [160, 160]
    assert len(open_reader(root).nearest(unit_vectors(24), 1000).hits) == 180


def test_an_index_that_is_large_enough_gets_a_graph(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_workers.retrieval.postgres.graph.GRAPH_FROM", 100)
    kinds = [update(root, folder, n, vector_items(unit_vectors(60, 24, seed=n), first=60 * n)).kind for n in (1, 2)]

    assert kinds == ["exact", "hnsw"]
    assert open_reader(root).nearest(unit_vectors(60, 24, seed=1)[7], 1).hits[0].id == "v67"


def test_a_withdrawn_update_changes_nothing(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(root, folder, 1, vector_items(unit_vectors(3, 24)))
    real = ArtifactsStore.read_bytes
    paths: list[str] = []

    def read_bytes(store: ArtifactsStore, path: str) -> bytes:
        paths.append(path)
        if paths.count("indexes/gallery/request.json") == 2:
            raise FileNotFoundError(path)
        return real(store, path)

    request_updates(root, folder, {2: {"removed": ["v0"]}}, **IN_POSTGRES)
    monkeypatch.setattr(ArtifactsStore, "read_bytes", read_bytes)
    assert run_job(root, "u2") == 0
    monkeypatch.undo()

    assert newest_generation(root).applied == 1


def test_an_update_is_applied_once_if_the_connection_is_lost(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyclip_workers.retrieval.postgres import updating

    real, attempts = updating.apply_changes, iter(["first", "second", "first"])

    def lose_connection(*args: Any, **options: Any) -> Generation:
        attempt = next(attempts)
        if number == 1 and attempt == "first":
            raise DatabaseUnavailable("lost before the commit")
        done = real(*args, **options)
        if number == 2:
            raise DatabaseUnavailable("lost after the commit")
        return done

    monkeypatch.setattr(updating, "apply_changes", lose_connection)
    for number in (1, 2):
        done = update(root, folder, number, vector_items(unit_vectors(3, 24), first=3 * number))

    assert (done.number, done.count, done.applied) == (3, 6, 2)


def test_unusual_ids_and_metadata_are_preserved(root: Path, folder: Path) -> None:
    odd = ["a\x01b", "\x01\x01", "é😀", "x" * 512, "'; DROP TABLE x; --", "%s"]
    metadata = {"a\x01": "\x01", "deep": {"%s": ["\u2028", None, 1e300]}, "nul": "a\u0000b"}
    update(root, folder, 1, [{"id": id, "vector": unit_vectors(24).tolist(), "metadata": metadata} for id in odd])

    hits = open_reader(root).nearest(unit_vectors(24), 9).hits

    assert [hit.id for hit in hits] == odd
    assert all(hit.metadata == metadata for hit in hits)
