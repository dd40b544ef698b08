"""Graphs and filters against brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import FilterError, parse_filter
from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval.generations import Generation, SegmentInfo, kind_of
from tinyclip_workers.retrieval.graph import needs_graph
from tinyclip_workers.retrieval.reader import FilesReader, open_index
from tinyclip_workers.retrieval.segment_writer import new_segment

from tests.workers.index_jobs import recall_of, unit

N, E = 6000, 32
needs_hnswlib = pytest.mark.skipif(
    not graphs.available(), reason="hnswlib is not installed (it needs a C++ compiler): pip install hnswlib"
)


def metadata(i: int) -> dict[str, Any]:
    return {
        "year": 2000 + i % 20, "camera": {"make": ["Leica", "Nikon", "Canon"][i % 3], "mm": i % 7 + 0.5}, "even": i % 2 == 0,
        "tags": [f"t{i % 5}", f"u{i % 11}"], "taken": f"2020-{i % 12 + 1:02}-01", "rare": i if i % 100 == 0 else None,
        "odd key/~": i % 4, "long": "x" * 300, "huge": 10**400, "not": float("nan"), "bad": "\ud800",
    }  # fmt: skip


@pytest.fixture(scope="module")
def vectors_NE() -> Any:
    """Like embeddings: they lie about an eighth as many dimensions as they have."""
    spread = unit(N, 12) @ unit(12, E, seed=1) + 0.1 * unit(N, E, seed=2)
    return spread / np.linalg.norm(spread, axis=1, keepdims=True)


def opened(root: Path, vectors_NE: Any, *, graph: bool) -> FilesReader:
    store = ArtifactsStore(str(root))
    with new_segment(store, "gallery", E) as segment:
        segment.add(vectors_NE, [(f"p{i}", metadata(i)) for i in range(N)])
        infos = [segment.finish(graph=graph)]
    return open_index(store, Generation(
        name="gallery", number=1, nonce="n", build=1, model="m@1", embed_dim=E, count=N, kind=kind_of(infos), segments=infos
    ))  # fmt: skip


@pytest.fixture(scope="module")
def exact(vectors_NE: Any, tmp_path_factory: pytest.TempPathFactory) -> FilesReader:
    return opened(tmp_path_factory.mktemp("exact"), vectors_NE, graph=False)


@pytest.fixture(scope="module")
def linked(vectors_NE: Any, tmp_path_factory: pytest.TempPathFactory) -> FilesReader:
    return opened(tmp_path_factory.mktemp("linked"), vectors_NE, graph=True)


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"year": 2003}, lambda m: m["year"] == 2003),
    ({"year": 2003.0, "even": False}, lambda m: m["year"] == 2003 and not m["even"]),
    ({"camera.make": ["Leica", "Canon"]}, lambda m: m["camera"]["make"] != "Nikon"),
    ({"camera.mm": {"gt": 1.5, "lte": 4.5}}, lambda m: 1.5 < m["camera"]["mm"] <= 4.5),
    ({"year": {"gte": 2010, "lt": 2012}, "tags": "t1"}, lambda m: m["year"] in (2010, 2011) and "t1" in m["tags"]),
    ({"tags": {"ne": "t1"}}, lambda m: "t1" not in m["tags"]),
    ({"taken": {"gte": "2020-03", "lt": "2020-05"}}, lambda m: m["taken"][:7] in ("2020-03", "2020-04")),
    ({"rare": {"in": [100, 200, 7]}}, lambda m: m["rare"] in (100, 200)),
    ({"odd key/~": {"gte": 3}}, lambda m: m["odd key/~"] == 3),
    ({"even": True}, lambda m: m["even"]),
    ({"even": 1}, lambda m: False),
    ({"year": {"gte": ""}}, lambda m: False),
    ({"nowhere": 1}, lambda m: False),
    ({"nowhere": {"ne": 1}}, lambda m: True),
    ({"rare": {"gt": -(10**300)}}, lambda m: m["rare"] is not None),
]


@pytest.mark.parametrize(("filter", "meets"), FILTERS)
def test_a_filter_leaves_what_python_leaves(exact: FilesReader, vectors_NE: Any, filter: dict[str, Any], meets: Any) -> None:
    rows = [i for i in range(N) if meets(metadata(i))]

    for query in unit(3, E, seed=3):
        found = exact.nearest(query, 1000, parse_filter(filter))
        truth = sorted(rows, key=lambda i: -float(vectors_NE[i] @ query))[:1000]
        assert len(found.hits) == min(1000, len(rows))
        assert {hit.id for hit in found.hits[:50]} == {f"p{i}" for i in truth[:50]}
        assert found.kind == "exact"


def test_metadata_comes_back_as_it_was_but_for_what_is_no_text(exact: FilesReader) -> None:
    [hit] = exact.nearest(unit(E), 1, parse_filter({"rare": 100})).hits

    assert (hit.id, hit.metadata["bad"]) == ("p100", "?")
    assert {**hit.metadata, "bad": 0, "not": 0} == {**metadata(100), "bad": 0, "not": 0}


@needs_hnswlib
class TestGraph:
    def test_recall_is_what_the_build_said(self, linked: FilesReader, vectors_NE: Any) -> None:
        queries = vectors_NE[np.random.default_rng(7).choice(N, 100, replace=False)] + 0.2 * unit(100, E, seed=4)

        assert linked.generation.recall is not None
        assert linked.generation.recall >= graphs.TARGET_RECALL
        assert recall_of(linked, vectors_NE, queries, np.ones(N, bool), []) >= 0.95
        assert linked.nearest(queries[0], 10).kind == "hnsw"

    def test_scores_are_cosines(self, linked: FilesReader, vectors_NE: Any) -> None:
        query = unit(E, seed=5)
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
    def test_filters_keeprecall_of(self, linked: FilesReader, vectors_NE: Any, filter: Any, meets: Any, kind: str) -> None:
        allowed_N = np.array([meets(metadata(i)) for i in range(N)])
        queries = unit(50, 12, seed=6) @ unit(12, E, seed=1)

        assert linked.nearest(queries[0], 10, parse_filter(filter)).kind == kind
        recall = recall_of(linked, vectors_NE, queries, allowed_N, parse_filter(filter))
        assert recall >= (0.95 if kind == "hnsw" else 1.0)

    def test_asked_for_more_than_there_is(self, linked: FilesReader) -> None:
        assert len(linked.nearest(unit(E), 1000, parse_filter({"rare": 100})).hits) == 1
        assert len(linked.nearest(unit(E), 1000).hits) == 1000

    def test_without_hnswlib_it_is_searched_exactly_and_says_so(
        self, vectors_NE: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened(tmp_path, vectors_NE, graph=True)
        monkeypatch.setattr(graphs, "available", lambda: False)
        store = ArtifactsStore(str(tmp_path))
        [id] = store.list("indexes/gallery/segments")
        infos = [SegmentInfo(id=id, count=N, kind="hnsw", ef=64, recall=1.0)]
        generation = Generation(
            name="gallery", number=1, nonce="n", build=1, model="m@1", embed_dim=E, count=N, kind="hnsw", segments=infos
        )

        assert open_index(store, generation).nearest(unit(E), 3).kind == "exact"
        assert "pip install 'tinyclip[hnsw]'" in caplog.text


def test_the_kind_follows_the_size_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "available", lambda: True)

    assert not needs_graph("auto", 99_999, 99_999)
    assert needs_graph("auto", 100_000, 100_000)
    assert not needs_graph("auto", 1_000_000, 9_999)
    assert needs_graph("hnsw", 10, 10)
    assert not needs_graph("exact", 1_000_000, 1_000_000)


@pytest.mark.parametrize(
    ("filter", "pointer", "says"),
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
def test_a_filter_that_means_nothing_is_refused(filter: dict[str, Any], pointer: str, says: str) -> None:
    with pytest.raises(FilterError, match=says) as refused:
        parse_filter(filter)

    assert refused.value.pointer == pointer
