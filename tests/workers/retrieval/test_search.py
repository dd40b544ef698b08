"""Graphs and filters of indexes in files against brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import FilterError, parse_filter
from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval.graph import needs_graph
from tinyclip_workers.retrieval.reader import FilesReader, open_index
from tinyclip_workers.retrieval.recall import TARGET_RECALL
from tinyclip_workers.types import Matrix

from tests.workers.index_jobs import recall_of, unit_vectors
from tests.workers.searched_items import FILTERS, E, N, index_in_files, item_vectors, metadata, queries_near_items

needs_hnswlib = pytest.mark.skipif(
    not graphs.available(), reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib"
)


@pytest.fixture(scope="module")
def vectors_NE() -> Matrix:
    return item_vectors()


@pytest.fixture(scope="module")
def exact(vectors_NE: Matrix, tmp_path_factory: pytest.TempPathFactory) -> FilesReader:
    return index_in_files(tmp_path_factory.mktemp("exact"), vectors_NE, graph=False)


@pytest.fixture(scope="module")
def linked_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("linked")


@pytest.fixture(scope="module")
def linked(vectors_NE: Matrix, linked_root: Path) -> FilesReader:
    return index_in_files(linked_root, vectors_NE, graph=True)


@pytest.mark.parametrize(("filter", "meets"), FILTERS)
def test_a_filter_selects_the_items_that_meet_it(exact: FilesReader, vectors_NE: Matrix, filter: Any, meets: Any) -> None:
    rows = [i for i in range(N) if meets(metadata(i))]

    for query in unit_vectors(3, E, seed=3):
        found = exact.nearest(query, 1000, parse_filter(filter))
        truth = sorted(rows, key=lambda i: -float(vectors_NE[i] @ query))[:1000]
        assert len(found.hits) == min(1000, len(rows))
        assert {hit.id for hit in found.hits[:50]} == {f"p{i}" for i in truth[:50]}
        assert found.kind == "exact"


def test_metadata_is_preserved_except_for_surrogates(exact: FilesReader) -> None:
    [hit] = exact.nearest(unit_vectors(E), 1, parse_filter({"rare": 100})).hits

    assert (hit.id, hit.metadata["bad"]) == ("p100", "?")
    assert {**hit.metadata, "bad": 0, "not": 0} == {**metadata(100), "bad": 0, "not": 0}


@needs_hnswlib
class TestGraph:
    def test_recall_reaches_the_target(self, linked: FilesReader, vectors_NE: Matrix) -> None:
        queries = vectors_NE[np.random.default_rng(7).choice(N, 100, replace=False)] + 0.2 * unit_vectors(100, E, seed=4)

        assert linked.generation.recall is not None
        assert linked.generation.recall >= TARGET_RECALL
        assert recall_of(linked, vectors_NE, queries, np.ones(N, bool), []) >= 0.95
        assert linked.nearest(queries[0], 10).kind == "hnsw"

    def test_scores_are_cosines(self, linked: FilesReader, vectors_NE: Matrix) -> None:
        query = unit_vectors(E, seed=5)
        hits = linked.nearest(query, 10).hits

        np.testing.assert_allclose([hit.score for hit in hits], [vectors_NE[int(hit.id[1:])] @ query for hit in hits], atol=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    @pytest.mark.parametrize(
        ("filter", "meets", "kind"),
        [
            ({"even": True}, lambda m: m["even"], "hnsw"),
            ({"year": {"gte": 2002}}, lambda m: m["year"] >= 2002, "hnsw"),
            ({"camera.make": "Leica", "year": 2001}, lambda m: m["camera"]["make"] == "Leica" and m["year"] == 2001, "exact"),
            ({"rare": {"gte": 0}}, lambda m: m["rare"] is not None, "exact"),
        ],
    )
    def test_filters_keep_recall(self, linked: FilesReader, vectors_NE: Matrix, filter: Any, meets: Any, kind: str) -> None:
        allowed_N = np.array([meets(metadata(i)) for i in range(N)])
        queries = queries_near_items(50)

        assert linked.nearest(queries[0], 10, parse_filter(filter)).kind == kind
        recall = recall_of(linked, vectors_NE, queries, allowed_N, parse_filter(filter))
        assert recall >= (0.95 if kind == "hnsw" else 1.0)

    def test_returns_fewer_hits_than_requested_if_fewer_exist(self, linked: FilesReader) -> None:
        assert len(linked.nearest(unit_vectors(E), 1000, parse_filter({"rare": 100})).hits) == 1
        assert len(linked.nearest(unit_vectors(E), 1000).hits) == 1000

    def test_is_replaced_by_exact_search_without_hnswlib(
        self, linked: FilesReader, linked_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(graphs, "available", lambda: False)

        reader = open_index(ArtifactsStore(str(linked_root)), linked.generation)

        assert reader.nearest(unit_vectors(E), 3).kind == "exact"
        assert "pip install 'tinyclip[hnsw]'" in caplog.text


def test_a_graph_is_built_for_large_indexes_or_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "available", lambda: True)

    assert not needs_graph("auto", 99_999, 99_999)
    assert needs_graph("auto", 100_000, 100_000)
    assert not needs_graph("auto", 1_000_000, 9_999)
    assert needs_graph("hnsw", 10, 10)
    assert not needs_graph("exact", 1_000_000, 1_000_000)


@pytest.mark.parametrize(
    ("filter", "pointer", "message"),
    [
        ({"year": {"above": 3}}, "/year/above", "unknown operator above; known are gt, gte, lt, lte, ne, in"),
        ({"camera": {"make": "Leica"}}, "/camera/make", "a nested key is written camera.make"),
        ({"a/b": {"gt": None}}, "/a~1b/gt", "not a text, a number"),
        ({"year": {"gte": 1, "lt": "z"}}, "/year", "cannot be compared"),
        ({"year": {"gt": True}}, "/year", "cannot be compared"),
        ({"year": {}}, "/year", "is empty"),
        ({"year": []}, "/year", "1 to 1000 values"),
        ({"year": None}, "/year", "not a text"),
        ({"year": float("inf")}, "/year", "cannot be compared"),
        ({"year": 10**400}, "/year", "cannot be compared"),
        ({"year": "\ud800"}, "/year", "surrogate"),
        ({"year": "x" * 201}, "/year", "200 characters"),
        ({"": 1}, "/", "not a path"),
        ({str(i): 1 for i in range(21)}, "", "more than 20"),
    ],
)
def test_an_invalid_filter_is_refused(filter: dict[str, Any], pointer: str, message: str) -> None:
    with pytest.raises(FilterError, match=message) as refused:
        parse_filter(filter)

    assert refused.value.pointer == pointer
