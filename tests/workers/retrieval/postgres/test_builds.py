"""Builds of indexes in PostgreSQL, and databases that cannot be used."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tinyclip.index_database import VARIABLE
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.postgres import TABLES, database, tables
from tests.workers.index_jobs import (
    IN_POSTGRES,
    job_events,
    newest_generation,
    open_reader,
    request_build,
    run_job,
    unit_vectors,
)
from tests.workers.students import encoded, random_image, square_of, write_shard

COUNT = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    samples = {f"p{seed:02}": {"png": encoded(random_image(seed)), "txt": f"picture {seed}".encode()} for seed in range(COUNT)}
    root = tmp_path_factory.mktemp("shards")
    write_shard(root / "a-0.tar", {**samples, "broken": {"png": b"no image"}})
    write_shard(root / "a-1.tar", {"p00": samples["p01"]})
    return str(root / "a-{0..1}.tar")


@pytest.mark.usefixtures("index_database")
class TestBuild:
    @pytest.mark.parametrize("kind", ["exact", "hnsw"])
    def test_finds_every_image(self, tmp_path: Path, folder: Path, shards: str, engine: Engine, kind: str) -> None:
        request_build(tmp_path, folder, shards, kind=kind, **IN_POSTGRES)

        assert run_job(tmp_path) == 0, job_events(tmp_path)

        index = open_reader(tmp_path)
        for seed in (0, COUNT - 1):
            query = engine.encode_image(square_of(random_image(seed))[None])[0]
            found = index.nearest(query, 3)
            assert (found.hits[0].id, found.kind) == (f"p{seed:02}", kind)
            assert found.hits[0].score == pytest.approx(1, abs=1e-5)
            assert found.hits[0].metadata["caption"] == f"picture {seed}"
        done = job_events(tmp_path)[-1]["data"]
        assert (done["count"], done["kind"], done["skipped_samples"]) == (COUNT, kind, 2)
        assert (done["recall"] is None) == (kind == "exact")
        assert len(index.nearest(np.ones(24, np.float32), 1000).hits) == COUNT

    def test_exact_search_gives_the_results_of_files(self, tmp_path: Path, folder: Path, shards: str) -> None:
        for name, changes in (("files", {}), ("pgvector", IN_POSTGRES)):
            request_build(tmp_path / name, folder, shards, **changes)
            assert run_job(tmp_path / name) == 0

        for query in unit_vectors(5, 24):
            expected, actual = (open_reader(tmp_path / name).nearest(query, 30).hits for name in ("files", "pgvector"))
            assert [hit.id for hit in actual] == [hit.id for hit in expected]
            assert [hit.metadata for hit in actual] == [hit.metadata for hit in expected]
            np.testing.assert_allclose([hit.score for hit in actual], [hit.score for hit in expected], atol=1e-6)

    def test_a_new_build_replaces_the_old_one(self, tmp_path: Path, folder: Path, shards: str, index_database: str) -> None:
        request_build(tmp_path, folder, shards, **IN_POSTGRES)
        run_job(tmp_path)
        indexes = Indexes(str(tmp_path))
        before = indexes.get("gallery", "student@1")
        request_build(tmp_path, folder, shards.replace("{0..1}", "1"), build=2, **IN_POSTGRES)

        assert run_job(tmp_path, 2) == 0

        assert len(tables(index_database)) == TABLES
        assert before.generation.count == COUNT
        searched, found = asyncio.run(
            indexes.nearest("gallery", "student@1", np.ones(24, np.float32), 9)
        )  # despite the open reader
        assert (searched.build, [hit.id for hit in found.hits]) == (2, ["p00"])

    def test_from_files_to_the_database_and_back(self, tmp_path: Path, folder: Path, shards: str, index_database: str) -> None:
        numbers = []
        for build, changes in ((1, {}), (2, IN_POSTGRES), (3, {})):
            request_build(tmp_path, folder, shards, build=build, **changes)
            assert run_job(tmp_path, build) == 0
            numbers.append(newest_generation(tmp_path).number)
            assert len(open_reader(tmp_path).nearest(np.ones(24, np.float32), 1000).hits) == COUNT
            assert len(list((tmp_path / "indexes/gallery").glob("segments/*"))) == (build != 2)
            assert len(tables(index_database)) == (TABLES if build == 2 else 0)
        assert numbers == [1, 2, 3]

    def test_a_failed_build_keeps_the_old_one(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch, index_database: str
    ) -> None:
        request_build(tmp_path, folder, shards, **IN_POSTGRES)
        run_job(tmp_path)
        request_build(tmp_path, folder, shards, build=2, kind="hnsw", **IN_POSTGRES)

        with monkeypatch.context() as patch:
            patch.setattr("tinyclip_workers.retrieval.postgres.building._choose_ef", lambda *_: 1 / 0)
            assert run_job(tmp_path, 2) == 1

        assert newest_generation(tmp_path).build == 1
        assert len(open_reader(tmp_path).nearest(np.ones(24, np.float32), 1000).hits) == COUNT
        assert run_job(tmp_path, 2) == 0
        assert len(tables(index_database)) == TABLES


class TestUnusableDatabase:
    def test_a_build_fails_with_the_variable_to_set(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        request_build(tmp_path, folder, shards, **IN_POSTGRES)

        assert run_job(tmp_path) == 1

        assert f"{VARIABLE} is not set here; set it in the environment of tinyclip-server" in job_events(tmp_path)[-1]["message"]

    def test_a_build_fails_without_the_extension(
        self, tmp_path: Path, folder: Path, shards: str, postgres: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with database(postgres, extension=False) as url:
            monkeypatch.setenv(VARIABLE, url)
            request_build(tmp_path, folder, shards, **IN_POSTGRES)

            assert run_job(tmp_path) == 1

        assert "let a superuser run CREATE EXTENSION vector in it" in job_events(tmp_path)[-1]["message"]

    @pytest.mark.parametrize("url", ["postgresql://me:secret@127.0.0.1:1/x", "postgresql:me:secret/x y=z"])
    def test_no_password_is_reported(
        self, tmp_path: Path, folder: Path, shards: str, url: str, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setenv(VARIABLE, url)
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database.RETRY_SECONDS", 0.0)
        request_build(tmp_path, folder, shards, **IN_POSTGRES)

        assert run_job(tmp_path) == 1

        assert VARIABLE in job_events(tmp_path)[-1]["message"]
        assert "secret" not in str(job_events(tmp_path)) + "".join(capfd.readouterr())

    def test_a_search_is_refused_while_the_database_is_unavailable(
        self, tmp_path: Path, folder: Path, index_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_build(tmp_path, folder, None, **IN_POSTGRES)
        assert run_job(tmp_path) == 0
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database.POOL_TIMEOUT_SECONDS", 0.2)
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database._pool", None)
        monkeypatch.setenv(VARIABLE, "postgresql://me:secret@127.0.0.1:1/x")

        with pytest.raises(ProblemError) as refused:
            asyncio.run(Indexes(str(tmp_path)).nearest("gallery", "student@1", unit_vectors(24), 3))

        problem = refused.value.problem
        assert (problem.status, problem.code, problem.retryable) == (503, "index_unavailable", True)
        assert "secret" not in problem.detail
