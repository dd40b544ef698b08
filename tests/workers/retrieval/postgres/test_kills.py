"""Jobs of indexes in PostgreSQL killed with SIGKILL: an index is at the old or the new generation, and no tables are left."""

from pathlib import Path

import numpy as np
import pytest

from tests.postgres import TABLES, connected_to, tables
from tests.workers.index_jobs import (
    IN_POSTGRES,
    job_events,
    newest_generation,
    open_reader,
    request_build,
    request_updates,
    run_job,
    unit_vectors,
)
from tests.workers.killed_jobs import kill_job
from tests.workers.students import encoded, random_image, write_shard

OLD, NEW = 20, 60
RETRIEVAL = "tinyclip_workers.retrieval"


@pytest.fixture
def root(tmp_path: Path, folder: Path, index_database: str) -> Path:
    """A store with an index of 20 images in the database."""
    shard = write_shard(tmp_path / "old.tar", {f"old{i}": {"png": encoded(random_image(i))} for i in range(OLD)})
    request_build(tmp_path, folder, str(shard), kind="hnsw", **IN_POSTGRES)
    assert run_job(tmp_path) == 0
    return tmp_path


def found_ids(root: Path) -> set[str]:
    hits = open_reader(root).nearest(np.ones(24, np.float32), 1000).hits
    assert len({hit.id for hit in hits}) == len(hits)
    return {hit.id for hit in hits}


BUILD_POINTS = {
    "tables named in the store": ("tinyclip.artifacts.store.ArtifactsStore.write_bytes", {"after": True, "path": "/tables/"}),
    "rows copied": (f"{RETRIEVAL}.postgres.graph.create_graph_in_background", {}),
    "graph created": (f"{RETRIEVAL}.postgres.building._choose_ef", {}),
    "state written": (f"{RETRIEVAL}.building.commit", {}),
    "committed": (f"{RETRIEVAL}.building.remove_unused", {}),
}


@pytest.mark.parametrize("point", BUILD_POINTS)
def test_a_killed_build_is_repeated(root: Path, folder: Path, index_database: str, point: str) -> None:
    shard = write_shard(root / "new.tar", {f"new{i}": {"png": encoded(random_image(i))} for i in range(NEW)})
    request_build(root, folder, str(shard), build=2, kind="hnsw", **IN_POSTGRES)
    old, new = {f"old{i}" for i in range(OLD)}, {f"new{i}" for i in range(NEW)}
    target, options = BUILD_POINTS[point]

    kill_job(root, "b2", target, **options)

    assert found_ids(root) == (new if point == "committed" else old)
    assert run_job(root, 2) == 0, job_events(root, 2)
    assert found_ids(root) == new
    done = newest_generation(root)
    assert (done.build, done.number, done.kind) == (2, 2, "hnsw")
    assert len(tables(index_database)) == TABLES
    assert len(list((root / "indexes/gallery/tables").iterdir())) == 1
    assert job_events(root, 2)[-1]["type"] == "index.finished"


UPDATE_POINTS = {
    "updates encoded": ("postgres.updating.apply_changes", False),
    "rows written": ("postgres.updating.write_state", False),
    "committed in the database": ("updating.commit", False),
    "committed in the store": ("updating.commit", True),
}


@pytest.mark.parametrize("point", UPDATE_POINTS)
def test_a_killed_update_is_applied_once(root: Path, folder: Path, point: str) -> None:
    items = [{"id": f"new{i}", "vector": row.tolist()} for i, row in enumerate(unit_vectors(30, 24))]
    items.append({"id": "old3", "text": "a cat"})
    updates = {1: {"items": items, "removed": ["old4"]}, 2: {"removed": ["new0"]}}
    request_updates(root, folder, updates, kind="hnsw", **IN_POSTGRES)
    old = {f"old{i}" for i in range(OLD)}
    new = old - {"old4"} | {f"new{i}" for i in range(1, 30)}
    name, after = UPDATE_POINTS[point]

    kill_job(root, "u2", f"{RETRIEVAL}.{name}", after=after)

    assert found_ids(root) == (new if point.startswith("committed") else old)
    assert run_job(root, "u2") == 0, job_events(root, "u2")
    assert found_ids(root) == new
    done = newest_generation(root)
    assert (done.number, done.count, done.applied) == (2, len(new), 2)
    assert job_events(root, "u2")[-1]["data"]["applied"] == 2
    assert list((root / "indexes/gallery/updates").iterdir()) == []


def test_tables_restored_to_an_earlier_state_are_not_changed(root: Path, folder: Path, index_database: str) -> None:
    request_updates(root, folder, {1: {"removed": ["old0"]}}, **IN_POSTGRES)
    assert run_job(root, "u1") == 0
    with connected_to(index_database) as connection:
        id = newest_generation(root).segments[0].id
        connection.execute(f"UPDATE tinyclip_{id}_state SET generation = jsonb_set(generation, '{{number}}', '1')")

    request_updates(root, folder, {2: {"removed": ["old1"]}}, **IN_POSTGRES)

    assert run_job(root, "u2") == 1
    assert "was restored to an earlier state; PUT the index again" in job_events(root, "u2")[-1]["message"]
