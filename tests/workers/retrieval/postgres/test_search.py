"""Filters and graphs of an index in PostgreSQL against brute force, and against the same index in files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import parse_filter
from tinyclip.index_database import VARIABLE
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.retrieval.reader import FilesReader, IndexReader, nearest_to_item
from tinyclip_workers.retrieval.recall import TARGET_RECALL
from tinyclip_workers.types import Matrix

from tests.workers.index_jobs import recall_of, unit_vectors
from tests.workers.searched_items import (
    FILTERS,
    ITEMS,
    E,
    N,
    generation_of,
    index_in_files,
    item_vectors,
    metadata,
    queries_near_items,
)

QUERIES = queries_near_items(30)


@pytest.fixture(scope="module")
def vectors_NE() -> Matrix:
    return item_vectors()


@dataclass(frozen=True)
class Readers:
    """Readers of the same tables, with and without the graph."""

    exact: IndexReader
    linked: IndexReader


@pytest.fixture(scope="module")
def readers(module_database: str, vectors_NE: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    from tinyclip_workers.retrieval.postgres.building import build_tables
    from tinyclip_workers.retrieval.postgres.database import ReplicaPool
    from tinyclip_workers.retrieval.postgres.reader import PostgresReader

    request = IndexRequest(
        name="gallery", job="b1", build=1, model="m@1", model_uri="", embed_dim=E, kind="hnsw", store="pgvector"
    )
    parts = [(vectors_NE[start : start + 1000], ITEMS[start : start + 1000]) for start in range(0, N, 1000)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, module_database)
        info = build_tables(
            ArtifactsStore(str(tmp_path_factory.mktemp("postgres"))), request, parts, Skipped(), total=N,
            queries=lambda: QUERIES[:10], on_progress=lambda done: None,
        )  # fmt: skip
        pool = ReplicaPool()
        without_graph = info.model_copy(update={"kind": "exact"})
        exact, linked = (PostgresReader(generation_of(each, store="pgvector"), pool) for each in (without_graph, info))
        yield Readers(exact, linked)
        pool.close()


@pytest.fixture(scope="module")
def in_files(vectors_NE: Matrix, tmp_path_factory: pytest.TempPathFactory) -> FilesReader:
    return index_in_files(tmp_path_factory.mktemp("files"), vectors_NE, graph=False)


MORE: list[dict[str, Any]] = [{"tags": ["t1", "u3"], "year": {"ne": 2001}}, {"even": 0}]


@pytest.mark.parametrize("filter", [*(filter for filter, _ in FILTERS), *MORE])
def test_a_filter_selects_the_items_that_it_selects_in_files(readers: Readers, in_files: FilesReader, filter: Any) -> None:
    for query in unit_vectors(2, E, seed=3):
        expected, actual = (index.nearest(query, 1000, parse_filter(filter)) for index in (in_files, readers.exact))

        assert [hit.id for hit in actual.hits[:50]] == [hit.id for hit in expected.hits[:50]]
        assert len(actual.hits) == len(expected.hits)
        np.testing.assert_allclose([hit.score for hit in actual.hits], [hit.score for hit in expected.hits], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "filter"),
    [
        (2**53 + 1, {"v": 2**53 + 1}), (2**53 + 1, {"v": 2**53}), (2**62, {"v": float(2**62)}), (2**62 + 1, {"v": float(2**62)}),
        (1e22, {"v": 10**22}), (10**300, {"v": 1e300}), (0.1, {"v": 0.1}), (-0.0, {"v": 0}), (5e-324, {"v": {"gt": 0}}),
        (True, {"v": 1}), (1, {"v": True}), (True, {"v": True}), ("1", {"v": 1}), (1.7e308, {"v": {"gt": 1e308}}),
        ("b\x01", {"v": {"gt": "b"}}), ("b\x01\x01", {"v": "b\x01\x01"}), ("\x01", {"v": {"gt": "\x01\x01"}}),
        ("é", {"v": {"gt": "z"}}), ("\uffff", {"v": {"lt": "😀"}}), ("Z", {"v": {"lt": "a"}}), ('"\\\'%s', {"v": '"\\\'%s'}),
        ([1, 5], {"v": {"gt": 2, "lt": 4}}), ([1, 5], {"v": {"gt": 2}}), (None, {"v": {"ne": 1}}), ([], {"v": {"gte": 0}}),
        ({"a.b": 1}, {"v.a.b": 1}), ("x" * 201, {"v": {"gte": ""}}), ([[1], [2]], {"v": 2}),
    ],
)  # fmt: skip
def test_values_are_compared_as_in_files(value: Any, filter: Any, postgres: str, tmp_path: Path) -> None:
    """Compare a condition in PostgreSQL with a segment of the same single item."""
    import psycopg
    from tinyclip_workers.retrieval.postgres.conditions import filter_fields, where_clause
    from tinyclip_workers.retrieval.segment import Segment
    from tinyclip_workers.retrieval.segment_writer import new_segment

    with new_segment(ArtifactsStore(str(tmp_path)), "gallery", E) as segment:
        segment.add(unit_vectors(1, E), [("a", {"v": value})])
        info = segment.finish(graph=False)
    expected = bool(Segment(tmp_path / f"indexes/gallery/segments/{info.id}", info, E).allowed(parse_filter(filter)).all())

    condition, parameters = where_clause(parse_filter(filter))
    with psycopg.connect(postgres) as connection:
        fields = psycopg.types.json.Jsonb(filter_fields({"v": value}))
        query = f"SELECT coalesce({condition}, false) FROM (SELECT %s::jsonb AS fields) AS one"
        [found] = connection.execute(query, (*parameters, fields)).fetchone() or (None,)

    assert found is expected


class TestGraph:
    def test_recall_reaches_the_target(self, readers: Readers, vectors_NE: Matrix) -> None:
        queries = vectors_NE[np.random.default_rng(7).choice(N, 50, replace=False)] + 0.2 * unit_vectors(50, E, seed=4)
        linked = readers.linked

        assert linked.generation.recall is not None
        assert linked.generation.recall >= TARGET_RECALL
        assert recall_of(linked, vectors_NE, queries, np.ones(N, bool), []) >= 0.95
        assert linked.nearest(queries[0], 10).kind == "hnsw"

    def test_scores_are_cosines_in_full_precision(self, readers: Readers, vectors_NE: Matrix) -> None:
        query = unit_vectors(E, seed=5)
        hits = readers.linked.nearest(query, 10).hits

        np.testing.assert_allclose([hit.score for hit in hits], [vectors_NE[int(hit.id[1:])] @ query for hit in hits], atol=1e-6)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    @pytest.mark.parametrize(
        ("filter", "meets", "kind"),
        [
            ({"year": {"gte": 2002}}, lambda m: m["year"] >= 2002, "hnsw"),
            ({"tags": {"ne": "t1"}}, lambda m: "t1" not in m["tags"], "hnsw"),
            ({"camera.make": "Leica", "year": 2001}, lambda m: m["camera"]["make"] == "Leica" and m["year"] == 2001, "exact"),
            ({"rare": {"gte": 0}}, lambda m: m["rare"] is not None, "exact"),
        ],
    )
    def test_filters_keep_recall(
        self, readers: Readers, vectors_NE: Matrix, filter: Any, meets: Any, kind: str
    ) -> None:
        allowed_N = np.array([meets(metadata(i)) for i in range(N)])
        conditions = parse_filter(filter)

        assert readers.linked.nearest(QUERIES[0], 10, conditions).kind == kind
        assert recall_of(readers.linked, vectors_NE, QUERIES, allowed_N, conditions) >= (0.95 if kind == "hnsw" else 1.0)

    @pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
    def test_the_graph_keeps_recall_with_selective_filters(
        self, readers: Readers, vectors_NE: Matrix, share: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a much larger index the graph would be cheaper than comparing all items that meet the filter."""
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.reader.FILTERED_STEP_COST", 0)
        taken = f"2020-{round(12 * share) or 1:02}-01"
        filter = {"taken": {"lte": taken}} if share > 0.05 else {"year": 2003, "even": False}
        allowed_N = np.array([
            metadata(i)["taken"] <= taken if share > 0.05 else (metadata(i)["year"] == 2003 and not metadata(i)["even"])
            for i in range(N)
        ])  # fmt: skip
        conditions = parse_filter({**filter, "key": {"ne": share}})  # a filter that is not cached

        assert readers.linked.nearest(QUERIES[0], 10, conditions).kind == "hnsw"
        assert recall_of(readers.linked, vectors_NE, QUERIES, allowed_N, conditions) >= 0.95

    def test_returns_fewer_hits_than_requested_if_fewer_exist(self, readers: Readers) -> None:
        assert len(readers.linked.nearest(unit_vectors(E), 1000, parse_filter({"rare": 100})).hits) == 1
        assert len(readers.linked.nearest(unit_vectors(E), 1000).hits) == 1000


def test_items_like_one_and_their_metadata(readers: Readers, in_files: FilesReader) -> None:
    for id in ("p0", "p7", f"p{N - 1}"):
        ours, theirs = nearest_to_item(readers.exact, id, 10), nearest_to_item(in_files, id, 10)

        assert ours is not None
        assert theirs is not None
        assert [hit.id for hit in ours.hits] == [hit.id for hit in theirs.hits]
        assert len(ours.hits) == 10
        assert readers.exact.item(id) is not None  # type: ignore[attr-defined]
    assert nearest_to_item(readers.exact, "nothing", 10) is None
