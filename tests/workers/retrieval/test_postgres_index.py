"""Indexes in PostgreSQL: builds, updates and searches give what indexes of files give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.index_database import VARIABLE
from tinyclip.schemas import JSON
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.reader import DatabaseUnavailable
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.indexes import Indexes

from tests.postgres import database, tables
from tests.workers.index_jobs import ask, ask_updates, current, events, generation, run, unit
from tests.workers.students import encoded, random_image, square_of, write_shard

COUNT = 40
IN_POSTGRES: JSON = {"store": "pgvector"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    samples = {f"p{seed:02}": {"png": encoded(random_image(seed)), "txt": f"picture {seed}".encode()} for seed in range(COUNT)}
    root = tmp_path_factory.mktemp("shards")
    write_shard(root / "a-0.tar", {**samples, "broken": {"png": b"no picture"}})
    write_shard(root / "a-1.tar", {"p00": samples["p01"]})
    return str(root / "a-{0..1}.tar")


@pytest.fixture
def root(tmp_path: Path, folder: Path, index_database: str) -> Path:
    """A store with an empty index in the database."""
    ask(tmp_path, folder, None, **IN_POSTGRES)
    assert run(tmp_path) == 0
    return tmp_path


def update(root: Path, folder: Path, number: int, items: list[JSON] = [], removed: list[str] = [], **changes: Any) -> Generation:  # noqa: B006
    ask_updates(root, folder, {number: {"items": items, "removed": removed}}, **IN_POSTGRES, **changes)
    assert run(root, f"u{number}") == 0, events(root, f"u{number}")
    return generation(root)


def vectors(rows: Any, first: int = 0) -> list[JSON]:
    return [{"id": f"v{first + i}", "vector": row.tolist(), "metadata": {"n": first + i}} for i, row in enumerate(rows)]


@pytest.mark.usefixtures("index_database")
class TestBuild:
    @pytest.mark.parametrize("kind", ["exact", "hnsw"])
    def test_finds_each_picture_by_itself(self, tmp_path: Path, folder: Path, shards: str, engine: Engine, kind: str) -> None:
        ask(tmp_path, folder, shards, kind=kind, **IN_POSTGRES)

        assert run(tmp_path) == 0, events(tmp_path)

        index = current(tmp_path)
        for seed in (0, COUNT - 1):
            query = engine.encode_image(square_of(random_image(seed))[None])[0]
            found = index.nearest(query, 3)
            assert (found.hits[0].id, found.kind) == (f"p{seed:02}", kind)
            assert found.hits[0].score == pytest.approx(1, abs=1e-5)
            assert found.hits[0].metadata["caption"] == f"picture {seed}"
        done = events(tmp_path)[-1]["data"]
        assert (done["count"], done["kind"], done["skipped_samples"]) == (COUNT, kind, 2)
        assert (done["recall"] is None) == (kind == "exact")
        assert len(index.nearest(np.ones(24, np.float32), 1000).hits) == COUNT

    def test_exact_search_gives_what_files_give(self, tmp_path: Path, folder: Path, shards: str) -> None:
        for name, changes in (("files", {}), ("pgvector", IN_POSTGRES)):
            ask(tmp_path / name, folder, shards, **changes)
            assert run(tmp_path / name) == 0

        for query in unit(5, 24):
            theirs, mine = (current(tmp_path / name).nearest(query, 30).hits for name in ("files", "pgvector"))
            assert [hit.id for hit in mine] == [hit.id for hit in theirs]
            assert [hit.metadata for hit in mine] == [hit.metadata for hit in theirs]
            np.testing.assert_allclose([hit.score for hit in mine], [hit.score for hit in theirs], atol=1e-6)

    def test_a_new_build_takes_the_place_of_the_old_one(
        self, tmp_path: Path, folder: Path, shards: str, index_database: str
    ) -> None:
        ask(tmp_path, folder, shards, **IN_POSTGRES)
        run(tmp_path)
        indexes = Indexes(str(tmp_path))
        before = indexes.get("gallery", "student@1")
        ask(tmp_path, folder, shards.replace("{0..1}", "1"), build=2, **IN_POSTGRES)

        assert run(tmp_path, 2) == 0

        assert len(tables(index_database)) == 2
        assert before.generation.count == COUNT
        answered, found = indexes.nearest("gallery", "student@1", np.ones(24, np.float32), 9)  # of the newest, though looked up
        assert (answered.build, [hit.id for hit in found.hits]) == (2, ["p00"])

    def test_from_files_to_the_database_and_back(self, tmp_path: Path, folder: Path, shards: str, index_database: str) -> None:
        numbers = []
        for build, changes in ((1, {}), (2, IN_POSTGRES), (3, {})):
            ask(tmp_path, folder, shards, build=build, **changes)
            assert run(tmp_path, build) == 0
            numbers.append(generation(tmp_path).number)
            assert len(current(tmp_path).nearest(np.ones(24, np.float32), 1000).hits) == COUNT
            assert len(list((tmp_path / "indexes/gallery").glob("segments/*"))) == (build != 2)
            assert len(tables(index_database)) == (2 if build == 2 else 0)
        assert numbers == [1, 2, 3]

    def test_a_failed_build_leaves_the_old_one(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch, index_database: str
    ) -> None:
        ask(tmp_path, folder, shards, **IN_POSTGRES)
        run(tmp_path)
        ask(tmp_path, folder, shards, build=2, **IN_POSTGRES)
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.building._choose_ef", lambda *_: 1 / 0)
        ask(tmp_path, folder, shards, build=2, kind="hnsw", **IN_POSTGRES)

        assert run(tmp_path, 2) == 1

        assert generation(tmp_path).build == 1
        assert len(current(tmp_path).nearest(np.ones(24, np.float32), 1000).hits) == COUNT
        monkeypatch.undo()
        monkeypatch.setenv(VARIABLE, index_database)
        assert run(tmp_path, 2) == 0
        assert len(tables(index_database)) == 2


class TestUpdates:
    def test_what_was_said_last_is_found(self, root: Path, folder: Path, engine: Engine) -> None:
        update(root, folder, 1, [*vectors(unit(3, 24)), {"id": "text", "text": "a cat"}])
        rows = unit(2, 24, seed=9)

        done = update(root, folder, 2, vectors(rows, first=2), ["v0", "nobody"])

        hits = current(root).nearest(engine.encode_text(["a cat"])[0], 9).hits
        assert hits[0].id == "text"
        assert {hit.id for hit in hits} == {"text", "v1", "v2", "v3"}
        assert current(root).nearest(rows[0], 1).hits[0].id == "v2"
        assert (done.number, done.count, done.applied, done.segments[0].count) == (3, 4, 2, 4)

    @pytest.mark.parametrize("kind", ["exact", "hnsw"])
    def test_any_history_gives_what_recomputation_gives(self, root: Path, folder: Path, kind: str) -> None:
        chance, known = np.random.default_rng(5), {}
        for number in range(1, 16):
            ids = chance.choice(300, chance.integers(1, 60), replace=False)
            rows = unit(len(ids), 24, seed=number)
            removed = [f"v{id}" for id in chance.choice(300, chance.integers(0, 30), replace=False) if id not in ids]
            items = [{"id": f"v{id}", "vector": row.tolist()} for id, row in zip(ids, rows, strict=True)]
            done = update(root, folder, number, items, removed, kind=kind)
            known = {id: row for id, row in known.items() if id not in removed}
            known |= {f"v{id}": row for id, row in zip(ids, rows, strict=True)}
            assert (done.count, done.kind) == (len(known), kind)
        names, matrix = list(known), np.stack(list(known.values()))

        shares = []
        for query in unit(20, 24, seed=99):
            found = current(root).nearest(query, 10)
            truth = [names[i] for i in np.argsort(-(matrix @ query), kind="stable")[:10]]
            scores = [known[hit.id] @ query for hit in found.hits]
            np.testing.assert_allclose([hit.score for hit in found.hits], scores, atol=1e-5)
            assert found.kind == kind
            shares.append(len({hit.id for hit in found.hits} & set(truth)) / 10)
        assert np.mean(shares) >= (0.95 if kind == "hnsw" else 1.0)

    def test_equal_ones_come_in_the_order_in_which_they_were_added(self, root: Path, folder: Path) -> None:
        row = unit(24)
        update(root, folder, 1, [{"id": id, "vector": row.tolist()} for id in ("c", "a", "b")])
        update(root, folder, 2, [{"id": "c", "vector": row.tolist()}])

        assert [hit.id for hit in current(root).nearest(row, 9).hits] == ["a", "b", "c"]

    def test_the_width_is_found_again_when_the_index_has_outgrown_it(
        self, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.updating.MEASURE_FROM", 100)
        small = update(root, folder, 1, vectors(unit(60, 24)), kind="hnsw")
        large = update(root, folder, 2, vectors(unit(100, 24, seed=1), first=60), kind="hnsw")
        same = update(root, folder, 3, vectors(unit(20, 24, seed=2), first=160), kind="hnsw")

        assert (small.recall, small.segments[0].measured) == (None, 0)
        assert large.recall is not None
        assert large.recall >= 0.97
        assert [one.segments[0].measured for one in (large, same)] == [160, 160]
        assert len(current(root).nearest(unit(24), 1000).hits) == 180

    def test_an_index_gets_its_graph_when_it_is_large_enough(
        self, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.graph.GRAPH_FROM", 100)
        kinds = [update(root, folder, n, vectors(unit(60, 24, seed=n), first=60 * n)).kind for n in (1, 2)]

        assert kinds == ["exact", "hnsw"]
        assert current(root).nearest(unit(60, 24, seed=1)[7], 1).hits[0].id == "v67"

    def test_an_update_that_is_not_wanted_any_more_changes_nothing(
        self, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        update(root, folder, 1, vectors(unit(3, 24)))
        real = ArtifactsStore.read_bytes
        looks: list[str] = []

        def read_bytes(store: ArtifactsStore, path: str) -> bytes:
            looks.append(path)
            if looks.count("indexes/gallery/request.json") == 2:
                raise FileNotFoundError(path)
            return real(store, path)

        ask_updates(root, folder, {2: {"removed": ["v0"]}}, **IN_POSTGRES)
        monkeypatch.setattr(ArtifactsStore, "read_bytes", read_bytes)
        assert run(root, "u2") == 0
        monkeypatch.undo()

        assert generation(root).applied == 1

    def test_a_connection_that_is_lost_on_the_way_back_does_not_apply_it_twice(
        self, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tinyclip_workers.retrieval.postgres import updating

        real, lost = updating.apply_changes, iter([True, False, True])

        def changed(*given: Any, **options: Any) -> Generation:
            before = next(lost)
            if number == 1 and before:
                raise DatabaseUnavailable("lost before it was written")
            done = real(*given, **options)
            if number == 2:
                raise DatabaseUnavailable("lost after it was written")
            return done

        monkeypatch.setattr(updating, "apply_changes", changed)
        for number in (1, 2):
            done = update(root, folder, number, vectors(unit(3, 24), first=3 * number))

        assert (done.number, done.count, done.applied) == (3, 6, 2)

    def test_odd_ids_and_metadata_come_back(self, root: Path, folder: Path) -> None:
        odd = ["a\x01b", "\x01\x01", "é😀", "x" * 512, "'; DROP TABLE x; --", "%s"]
        metadata = {"a\x01": "\x01", "deep": {"%s": ["\u2028", None, 1e300]}, "nul": "a\u0000b"}
        update(root, folder, 1, [{"id": id, "vector": unit(24).tolist(), "metadata": metadata} for id in odd])

        hits = current(root).nearest(unit(24), 9).hits

        assert [hit.id for hit in hits] == odd
        assert all(hit.metadata == metadata for hit in hits)


class TestWithoutADatabase:
    def test_a_build_says_what_to_set(self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        ask(tmp_path, folder, shards, **IN_POSTGRES)

        assert run(tmp_path) == 1

        assert f"{VARIABLE} is not set here; set it in the environment of tinyclip-server" in events(tmp_path)[-1]["message"]

    def test_nor_the_extension(
        self, tmp_path: Path, folder: Path, shards: str, postgres: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with database(postgres, extension=False) as url:
            monkeypatch.setenv(VARIABLE, url)
            ask(tmp_path, folder, shards, **IN_POSTGRES)

            assert run(tmp_path) == 1

        assert "let a superuser run CREATE EXTENSION vector in it" in events(tmp_path)[-1]["message"]

    @pytest.mark.parametrize("url", ["postgresql://me:secret@127.0.0.1:1/x", "postgresql:me:secret/x y=z"])
    def test_a_build_names_no_password(
        self, tmp_path: Path, folder: Path, shards: str, url: str, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setenv(VARIABLE, url)
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database.RETRY_SECONDS", 0.0)
        ask(tmp_path, folder, shards, **IN_POSTGRES)

        assert run(tmp_path) == 1

        assert VARIABLE in events(tmp_path)[-1]["message"]
        assert "secret" not in str(events(tmp_path)) + "".join(capfd.readouterr())

    def test_a_search_is_refused_while_it_is_away(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database.POOL_TIMEOUT_SECONDS", 0.2)
        monkeypatch.setattr("tinyclip_workers.retrieval.postgres.database._pool", None)
        monkeypatch.setenv(VARIABLE, "postgresql://me:secret@127.0.0.1:1/x")

        with pytest.raises(ProblemError) as refused:
            Indexes(str(root)).nearest("gallery", "student@1", unit(24), 3)

        problem = refused.value.problem
        assert (problem.status, problem.code, problem.retryable) == (503, "index_unavailable", True)
        assert "secret" not in problem.detail

    def test_of_another_model_is_refused(self, root: Path) -> None:
        with pytest.raises(ProblemError, match="embeddings of student@1 and this deployment serves other@2"):
            Indexes(str(root)).nearest("gallery", "other@2", unit(24), 3)
