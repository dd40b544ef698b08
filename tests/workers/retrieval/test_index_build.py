"""Building an index from shards, searching it, and what a failure leaves behind."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.workers.index_jobs import ask, current, events, generation, run
from tests.workers.students import encoded, random_image, square_of, write_shard

COUNT = 70


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """70 pictures in two shards, and three samples that are none."""
    samples = {
        f"p{seed:02}": {
            "png": encoded(random_image(seed)), "txt": f"picture {seed}".encode(), "json": json.dumps({"seed": seed}).encode(),
        }
        for seed in range(COUNT)
    }
    samples["broken"] = {"png": b"no picture", "txt": b"x"}
    samples["no-image"] = {"txt": b"x"}
    root = tmp_path_factory.mktemp("shards")
    keys = list(samples)
    write_shard(root / "a-0.tar", {key: samples[key] for key in keys[:40]})
    write_shard(root / "a-1.tar", {**{key: samples[key] for key in keys[40:]}, "p00": samples["p01"]})
    return str(root / "a-{0..1}.tar")


class TestBuild:
    def test_finds_each_picture_by_itself(self, tmp_path: Path, folder: Path, shards: str, engine: Engine) -> None:
        ask(tmp_path, folder, shards)

        assert run(tmp_path) == 0

        index = current(tmp_path)
        for seed in (0, 39, 40, COUNT - 1):
            query = engine.encode_image(square_of(random_image(seed))[None])[0]
            hits = index.nearest(query, 3).hits
            assert hits[0].id == f"p{seed:02}"
            assert hits[0].score == pytest.approx(1, abs=1e-5)
            assert hits[0].metadata["caption"] == f"picture {seed}"
            assert hits[0].metadata["seed"] == seed
            assert hits[0].metadata["shard"].endswith(f"a-{seed // 40}.tar")
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_scores_are_exact_cosines(self, tmp_path: Path, folder: Path, shards: str, engine: Engine) -> None:
        ask(tmp_path, folder, shards)
        run(tmp_path)
        query = engine.encode_text(["a cat"])[0]
        pictures = engine.encode_image(np.stack([square_of(random_image(seed)) for seed in range(COUNT)]))

        hits = current(tmp_path).nearest(query, 1000).hits

        assert len(hits) == COUNT
        np.testing.assert_allclose([hit.score for hit in hits], sorted(pictures @ query, reverse=True), atol=1e-5)

    def test_tells_its_progress_and_what_it_skipped(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards)

        run(tmp_path)

        told = events(tmp_path)
        assert told[-1]["type"] == "index.finished"
        assert told[-1]["data"] == {
            "build": 1, "count": COUNT, "kind": "exact", "recall": None, "skipped_samples": 3, "skipped_shards": 0,
        }  # fmt: skip
        progress = [event["data"] for event in told if event["type"] == "index.progress"]
        assert all(0 < event["done"] <= event["total"] <= 2 * COUNT for event in progress)

    def test_a_new_build_replaces_the_old_one_under_an_open_reader(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards)
        run(tmp_path)
        opened = current(tmp_path)
        ask(tmp_path, folder, shards.replace("{0..1}", "0"), build=2)

        assert run(tmp_path, 2) == 0

        assert current(tmp_path).generation.count == 40
        assert len(opened.nearest(np.ones(24, np.float32), 1000).hits) == COUNT
        assert len(list((tmp_path / "indexes/gallery/segments").iterdir())) == 1
        assert not (tmp_path / "indexes/gallery/builds").exists()

    def test_in_a_remote_store(self, tmp_path: Path, folder: Path, shards: str) -> None:
        store = ArtifactsStore("memory://artifacts")
        ask("memory://artifacts", folder, shards)
        try:
            code = run("memory://artifacts")
            index = current("memory://artifacts")
        finally:
            store.remove("indexes")

        assert code == 0
        assert len(index.nearest(np.ones(24, np.float32), 1000).hits) == COUNT


class TestFailures:
    def test_no_shard_matches(self, tmp_path: Path, folder: Path) -> None:
        ask(tmp_path, folder, str(tmp_path / "nothing-*.tar"))

        assert run(tmp_path) == 1

        failed = events(tmp_path)[-1]
        assert (failed["type"], failed["data"]["code"]) == ("index.failed", "unreadable_data")
        assert "no shard matches" in failed["message"]

    def test_shards_without_pictures(self, tmp_path: Path, folder: Path) -> None:
        shard = write_shard(tmp_path / "texts.tar", {"a": {"txt": b"x"}})
        ask(tmp_path, folder, str(shard))

        assert run(tmp_path) == 1

        assert "no image in 1 shards; 1 samples were skipped, for example sample a" in events(tmp_path)[-1]["message"]

    def test_in_a_database_without_the_package_for_it(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in sys.modules if name.startswith("tinyclip_workers.retrieval.postgres")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        ask(tmp_path, folder, shards, store="pgvector")

        assert run(tmp_path) == 1

        failed = events(tmp_path)[-1]
        assert failed["data"]["code"] == "index_failed"
        assert "pip install 'tinyclip[pgvector]'" in failed["message"]

    def test_a_failed_build_leaves_the_old_one(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards)
        run(tmp_path)
        ask(tmp_path, folder, str(tmp_path / "missing.tar"), build=2)

        assert run(tmp_path, 2) == 1

        assert generation(tmp_path).build == 1

    def test_a_build_that_is_no_longer_wanted_leaves(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards, build=2)

        assert run(tmp_path, 1) == 0

        assert not (tmp_path / "indexes/gallery/generations").exists()


class TestAskingForAnIndex:
    def test_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ProblemError) as refused:
            current(tmp_path)

        assert (refused.value.problem.status, refused.value.problem.code) == (404, "index_not_found")

    def test_that_is_still_being_built(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards)

        with pytest.raises(ProblemError) as refused:
            current(tmp_path)

        problem = refused.value.problem
        assert (problem.status, problem.code, problem.retryable) == (409, "index_not_ready", True)

    def test_of_another_model(self, tmp_path: Path, folder: Path, shards: str) -> None:
        ask(tmp_path, folder, shards)
        run(tmp_path)

        with pytest.raises(ProblemError, match="embeddings of student@1 and this deployment serves other@2") as refused:
            current(tmp_path, model="other@2")

        assert refused.value.problem.status == 409

    @pytest.mark.parametrize("name", ["../jobs", "", "a/b", ".hidden"])
    def test_by_no_proper_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ProblemError) as refused:
            Indexes(str(tmp_path)).get(name, "student@1")

        assert refused.value.problem.status == 422
