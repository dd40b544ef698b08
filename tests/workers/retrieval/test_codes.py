"""Indexes with codes and nested sizes: what they find, beside an exact search in floats, and how they are updated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tinyclip.artifacts.paths import SEGMENT_CODES
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import parse_filter
from tinyclip.schemas.indexes import IndexCodes, IndexPut
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.codes import BinaryVectors, leading, open_vectors, rotation, write_codes
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import FilesReader, nearest_to_item, open_index
from tinyclip_workers.retrieval.segment_writer import new_segment
from tinyclip_workers.types import Matrix

from tests.workers.index_jobs import (
    job_events,
    newest_generation,
    open_reader,
    recall_of,
    request_build,
    run_job,
    unit_vectors,
    update,
    vector_items,
)
from tests.workers.searched_items import ITEMS, E, N, generation_of, item_vectors, metadata, queries_near_items
from tests.workers.students import encoded, random_image, square_of, write_shard

CODES: tuple[IndexCodes, ...] = ("int8", "binary")
FOLDERS: dict[IndexCodes, Path] = {}
"""The stores of `coded`."""


@pytest.fixture(scope="module")
def vectors_NE() -> Matrix:
    return item_vectors()


@pytest.fixture(scope="module", params=CODES)
def coded(request: pytest.FixtureRequest, vectors_NE: Matrix, tmp_path_factory: pytest.TempPathFactory) -> FilesReader:
    FOLDERS[request.param] = tmp_path_factory.mktemp(request.param)
    store = ArtifactsStore(str(FOLDERS[request.param]))
    with new_segment(store, "gallery", E, request.param) as segment:
        segment.add(vectors_NE, ITEMS)
        info = segment.finish(graph=False, queries_QE=queries_near_items(50))
    return open_index(store, generation_of(info, codes=request.param))


def sizes_of(reader: FilesReader, file: str) -> int:
    [folder] = [path.parent for path in FOLDERS[reader.generation.codes].rglob("items.sqlite")]
    return (folder / file).stat().st_size


class TestSearch:
    def test_items_like_one_by_the_vector_that_its_codes_stand_for(self, coded: FilesReader, vectors_NE: Matrix) -> None:
        for row in (0, 7, N - 1):
            found = nearest_to_item(coded, f"p{row}", 10)
            vector_E = coded.vector(f"p{row}")

            assert found is not None
            assert vector_E is not None
            assert float(vector_E @ vectors_NE[row]) > 0.999
            assert f"p{row}" not in [hit.id for hit in found.hits]
            truth = [f"p{place}" for place in np.argsort(-(vectors_NE @ vectors_NE[row]))[1:11]]
            assert len({hit.id for hit in found.hits} & set(truth)) >= 9
        assert nearest_to_item(coded, "nothing", 10) is None

    def test_recall_is_what_was_measured(self, coded: FilesReader, vectors_NE: Matrix) -> None:
        [info] = coded.generation.segments

        found = recall_of(coded, vectors_NE, queries_near_items(50), np.ones(N, bool), [])

        assert info.recall is not None
        assert info.recall >= 0.97
        assert found >= 0.95
        assert info.search_ms is not None
        assert coded.generation.measurements().keys() == {"recall", "bytes", "search_ms"}

    def test_scores_are_cosines_up_to_rounding(self, coded: FilesReader, vectors_NE: Matrix) -> None:
        [query] = unit_vectors(1, E, seed=4)

        hits = coded.nearest(query, 20).hits

        np.testing.assert_allclose([hit.score for hit in hits], [vectors_NE[int(hit.id[1:])] @ query for hit in hits], atol=6e-3)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    @pytest.mark.parametrize(
        ("filter", "meets"),
        [({"year": 2003}, lambda m: m["year"] == 2003), ({"rare": {"in": [100, 200]}}, lambda m: m["rare"] in (100, 200))],
    )
    def test_filters_keep_recall(self, coded: FilesReader, vectors_NE: Matrix, filter: Any, meets: Any) -> None:
        allowed_N = np.array([bool(meets(metadata(i))) for i in range(N)])
        wanted = min(10, int(allowed_N.sum()))

        found = recall_of(coded, vectors_NE, unit_vectors(30, E, seed=4), allowed_N, parse_filter(filter))

        assert found >= 0.95 * wanted / 10

    def test_they_are_smaller(self, coded: FilesReader) -> None:
        [info] = coded.generation.segments
        bits = 0 if info.codes == "int8" else 8 + 4

        assert coded.segments[0].memory == 0
        assert N * (E + 4 + bits) <= sum(sizes_of(coded, file) for file in SEGMENT_CODES[info.codes]) < N * (E + 4 + bits) + 2000
        assert info.bytes == sum(sizes_of(coded, file) for file in info.files)


def test_an_estimate_of_binary_codes_is_near_the_product(tmp_path: Path) -> None:
    vectors_NE = leading(unit_vectors(400, 100) + 0.3, 99)
    np.save(tmp_path / "vectors.npy", vectors_NE)
    write_codes(tmp_path, "binary")
    vectors, [query] = open_vectors(tmp_path, "binary", 20), unit_vectors(1, 99, seed=3)
    assert isinstance(vectors, BinaryVectors)

    estimates_N = vectors._estimates(rotation(99) @ query, None)

    products_N = vectors_NE @ query
    assert np.corrcoef(estimates_N, products_N)[0, 1] > 0.8


@pytest.mark.parametrize("codes", CODES)
def test_rows_that_are_read_and_written_again_keep_their_codes(tmp_path: Path, codes: IndexCodes) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    vectors_NE = unit_vectors(50, 70)
    for folder in folders:
        folder.mkdir()
        np.save(folder / "vectors.npy", vectors_NE)
        write_codes(folder, codes)
        vectors_NE = open_vectors(folder, codes, 20).rows(np.arange(50))

    first, second = (np.load(folder / "vectors.npy").astype(int) for folder in folders)
    assert (first == second).mean() > 0.999
    assert np.abs(first - second).max() <= 1


class TestRefusals:
    @pytest.mark.parametrize("change", [{"kind": "hnsw"}, {"store": "pgvector"}])
    def test_codes_are_for_files_without_graphs(self, change: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="omit"):
            IndexPut.model_validate({"model": "m@1", "codes": "int8", **change})

    def test_dimensions_are_for_files(self) -> None:
        with pytest.raises(ValidationError, match="omit"):
            IndexPut(model="m@1", dimensions=4, store="pgvector")


@pytest.mark.parametrize("codes", CODES)
class TestIndex:
    """An index of a job with codes and a nested size: the model's embeddings have 24 numbers."""

    OPTIONS = {"dimensions": 12}

    def test_a_build_measures_it_and_updates_keep_its_codes(
        self, tmp_path: Path, folder: Path, engine: Engine, codes: str
    ) -> None:
        samples = {f"p{seed:02}": {"png": encoded(random_image(seed)), "txt": b"a picture"} for seed in range(40)}
        write_shard(tmp_path / "a.tar", samples)
        root, options = tmp_path / "store", {**self.OPTIONS, "codes": codes}
        request_build(root, folder, str(tmp_path / "a.tar"), **options)
        assert run_job(root) == 0

        [finished] = [event["data"] for event in job_events(root) if event["type"] == "index.finished"]
        assert finished["recall"] >= 0.8
        assert finished["bytes"] > 0
        query = engine.encode_image(square_of(random_image(7))[None])[0]
        assert open_reader(root).nearest(query, 1).hits[0].id == "p07"

        whole = unit_vectors(30, 24, seed=1)
        changed: Generation = update(root, folder, 1, vector_items(whole), removed=["p07"], **options)

        assert (changed.codes, changed.dimensions, changed.count) == (codes, 12, 69)
        assert {info.codes for info in newest_generation(root).segments} == {codes}
        reader = open_reader(root)
        assert [hit.id for hit in reader.nearest(whole[3], 1).hits] == ["v3"]
        assert "p07" not in {hit.id for hit in reader.nearest(query, 69).hits}
        [score] = [hit.score for hit in reader.nearest(whole[3], 1).hits]
        assert score == pytest.approx(1, abs=0.02)
