"""Builds from shards: their items, progress and failures, and opening an index that cannot be searched."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.workers.index_jobs import job_events, newest_generation, open_reader, request_build, run_job
from tests.workers.students import encoded, random_image, square_of, write_shard

COUNT = 70


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return two shards with 70 images and three samples that must be skipped."""
    samples = {
        f"p{seed:02}": {
            "png": encoded(random_image(seed)), "txt": f"picture {seed}".encode(), "json": json.dumps({"seed": seed}).encode(),
        }
        for seed in range(COUNT)
    }
    samples["broken"] = {"png": b"no image", "txt": b"x"}
    samples["no-image"] = {"txt": b"x"}
    root = tmp_path_factory.mktemp("shards")
    keys = list(samples)
    write_shard(root / "a-0.tar", {key: samples[key] for key in keys[:40]})
    write_shard(root / "a-1.tar", {**{key: samples[key] for key in keys[40:]}, "p00": samples["p01"]})
    return str(root / "a-{0..1}.tar")


@pytest.fixture(scope="module")
def built(shards: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index of the shards; tests only read it."""
    root = tmp_path_factory.mktemp("built")
    request_build(root, folder, shards)
    assert run_job(root) == 0
    return root


class TestBuild:
    def test_finds_every_image(self, built: Path, engine: Engine) -> None:
        index = open_reader(built)

        for seed in (0, 39, 40, COUNT - 1):
            query = engine.encode_image(square_of(random_image(seed))[None])[0]
            hits = index.nearest(query, 3).hits
            assert hits[0].id == f"p{seed:02}"
            assert hits[0].score == pytest.approx(1, abs=1e-5)
            assert hits[0].metadata["caption"] == f"picture {seed}"
            assert hits[0].metadata["seed"] == seed
            assert hits[0].metadata["shard"].endswith(f"a-{seed // 40}.tar")
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_scores_are_exact_cosines(self, built: Path, engine: Engine) -> None:
        query = engine.encode_text(["a cat"])[0]
        images = engine.encode_image(np.stack([square_of(random_image(seed)) for seed in range(COUNT)]))

        hits = open_reader(built).nearest(query, 1000).hits

        assert len(hits) == COUNT
        np.testing.assert_allclose([hit.score for hit in hits], sorted(images @ query, reverse=True), atol=1e-5)

    def test_reports_its_progress_and_skipped_samples(self, built: Path) -> None:
        events = job_events(built)

        assert events[-1]["type"] == "index.finished"
        data = events[-1]["data"]
        assert data.pop("bytes") > COUNT * 24 * 4
        assert data.pop("search_ms") > 0
        assert data == {
            "build": 1, "count": COUNT, "kind": "exact", "recall": None, "skipped_samples": 3, "skipped_shards": 0,
        }  # fmt: skip
        progress = [event["data"] for event in events if event["type"] == "index.progress"]
        assert all(0 < event["done"] <= event["total"] <= 2 * COUNT for event in progress)

    def test_an_open_reader_survives_a_new_build(self, tmp_path: Path, folder: Path, shards: str) -> None:
        request_build(tmp_path, folder, shards)
        run_job(tmp_path)
        before = open_reader(tmp_path)
        request_build(tmp_path, folder, shards.replace("{0..1}", "0"), build=2)

        assert run_job(tmp_path, 2) == 0

        assert open_reader(tmp_path).generation.count == 40
        assert len(before.nearest(np.ones(24, np.float32), 1000).hits) == COUNT
        assert len(list((tmp_path / "indexes/gallery/segments").iterdir())) == 1
        assert not (tmp_path / "indexes/gallery/builds").exists()

    def test_in_a_remote_store(self, tmp_path: Path, folder: Path, shards: str) -> None:
        store = ArtifactsStore("memory://artifacts")
        request_build("memory://artifacts", folder, shards)
        try:
            code = run_job("memory://artifacts")
            index = open_reader("memory://artifacts")
        finally:
            store.remove("indexes")

        assert code == 0
        assert len(index.nearest(np.ones(24, np.float32), 1000).hits) == COUNT


class TestFailures:
    def test_no_shard_matches(self, tmp_path: Path, folder: Path) -> None:
        request_build(tmp_path, folder, str(tmp_path / "nothing-*.tar"))

        assert run_job(tmp_path) == 1

        failed = job_events(tmp_path)[-1]
        assert (failed["type"], failed["data"]["code"]) == ("index.failed", "unreadable_data")
        assert "no shard matches" in failed["message"]

    def test_shards_without_images(self, tmp_path: Path, folder: Path) -> None:
        shard = write_shard(tmp_path / "texts.tar", {"a": {"txt": b"x"}})
        request_build(tmp_path, folder, str(shard))

        assert run_job(tmp_path) == 1

        assert "no image in 1 shards; 1 samples were skipped, for example sample a" in job_events(tmp_path)[-1]["message"]

    def test_in_a_database_without_the_required_package(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in sys.modules if name.startswith("tinyclip_workers.retrieval.postgres")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        request_build(tmp_path, folder, shards, store="pgvector")

        assert run_job(tmp_path) == 1

        failed = job_events(tmp_path)[-1]
        assert failed["data"]["code"] == "index_failed"
        assert "pip install 'tinyclip[pgvector]'" in failed["message"]

    def test_a_failed_build_keeps_the_old_one(self, tmp_path: Path, folder: Path, shards: str) -> None:
        request_build(tmp_path, folder, shards)
        run_job(tmp_path)
        request_build(tmp_path, folder, str(tmp_path / "missing.tar"), build=2)

        assert run_job(tmp_path, 2) == 1

        assert newest_generation(tmp_path).build == 1

    def test_a_withdrawn_build_writes_nothing(self, tmp_path: Path, folder: Path, shards: str) -> None:
        request_build(tmp_path, folder, shards, build=2)

        assert run_job(tmp_path, 1) == 0

        assert not (tmp_path / "indexes/gallery/generations").exists()


class TestOpening:
    def test_an_unknown_index(self, tmp_path: Path) -> None:
        with pytest.raises(ProblemError) as refused:
            open_reader(tmp_path)

        assert (refused.value.problem.status, refused.value.problem.code) == (404, "index_not_found")

    def test_an_index_before_its_first_build(self, tmp_path: Path, folder: Path, shards: str) -> None:
        request_build(tmp_path, folder, shards)

        with pytest.raises(ProblemError) as refused:
            open_reader(tmp_path)

        problem = refused.value.problem
        assert (problem.status, problem.code, problem.retryable) == (409, "index_not_ready", True)

    def test_an_index_of_another_model(self, tmp_path: Path, folder: Path, shards: str) -> None:
        request_build(tmp_path, folder, shards)
        run_job(tmp_path)

        with pytest.raises(ProblemError, match="embeddings of student@1 and this deployment serves other@2") as refused:
            open_reader(tmp_path, model="other@2")

        assert refused.value.problem.status == 409

    @pytest.mark.parametrize("name", ["../jobs", "", "a/b", ".hidden"])
    def test_an_invalid_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ProblemError) as refused:
            Indexes(str(tmp_path)).get(name, "student@1")

        assert refused.value.problem.status == 422
