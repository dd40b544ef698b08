"""Indexes in PostgreSQL: builds, updates and searches as of files."""

from pathlib import Path

import pytest
from tinyclip.schemas import JSON
from tinyclip_workers.serving.engine import Engine, load_engine

from tests.workers.databases import index_database, postgres  # noqa: F401
from tests.workers.index_jobs import ask, current, events, run
from tests.workers.students import encoded, picture, seen, write_shard, write_student

pytestmark = pytest.mark.usefixtures("index_database")
COUNT = 40
PGVECTOR: JSON = {"store": "pgvector"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("models") / "student" / "1")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    samples = {f"p{seed:02}": {"png": encoded(picture(seed)), "txt": f"picture {seed}".encode()} for seed in range(COUNT)}
    root = tmp_path_factory.mktemp("shards")
    write_shard(root / "a-0.tar", {**samples, "broken": {"png": b"no picture"}})
    write_shard(root / "a-1.tar", {"p00": samples["p01"]})
    return str(root / "a-{0..1}.tar")


class TestBuild:
    @pytest.mark.parametrize("kind", ["exact", "hnsw"])
    def test_finds_each_picture_by_itself(self, tmp_path: Path, folder: Path, shards: str, engine: Engine, kind: str) -> None:
        ask(tmp_path, folder, shards, kind=kind, **PGVECTOR)

        assert run(tmp_path) == 0, events(tmp_path)

        index = current(tmp_path)
        for seed in (0, COUNT - 1):
            query = engine.encode_image(seen(picture(seed))[None])[0]
            found = index.nearest(query, 3)
            assert (found.hits[0].id, found.kind) == (f"p{seed:02}", kind)
            assert found.hits[0].score == pytest.approx(1, abs=1e-5)
            assert found.hits[0].metadata["caption"] == f"picture {seed}"
        done = events(tmp_path)[-1]["data"]
        assert (done["count"], done["kind"], done["skipped_samples"]) == (COUNT, kind, 2)
