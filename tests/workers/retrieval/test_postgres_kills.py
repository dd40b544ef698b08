"""`kill -9` in a build and in an update of an index in PostgreSQL: it is the old one or the new one, and no tables are left."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.postgres import connected_to, tables
from tests.workers.index_jobs import arguments, ask, ask_updates, current, events, generation, run, unit
from tests.workers.retrieval.test_index_kills import kill_once
from tests.workers.students import encoded, random_image, write_shard

OLD, NEW = 20, 60

HOLD = """
import pathlib, sys, time
from tinyclip_workers import jobs
from tinyclip_workers.retrieval import building, updating
from tinyclip_workers.retrieval.postgres import building as tables_building, updating as tables_updating, graph, table

def hold(*_, **__):
    pathlib.Path(sys.argv.pop(1)).touch()
    time.sleep(600)

"""
"""Before a line that says where the process stands still, so that it is killed just there, however fast it is."""


@pytest.fixture
def root(tmp_path: Path, folder: Path, index_database: str) -> Path:
    """A store with an index of 20 pictures in the database."""
    shard = write_shard(tmp_path / "old.tar", {f"old{i}": {"png": encoded(random_image(i))} for i in range(OLD)})
    ask(tmp_path, folder, str(shard), store="pgvector", kind="hnsw")
    assert run(tmp_path) == 0
    return tmp_path


def kill_at(root: Path, job: str, line: str) -> None:
    held = root / "held"
    code = f"{HOLD}\n{line}\nsys.exit(jobs.main(sys.argv[2:]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(held), *arguments(root, job)], stderr=subprocess.DEVNULL)
    kill_once(process, held.exists)


def found(root: Path) -> set[str]:
    hits = current(root).nearest(np.ones(24, np.float32), 1000).hits
    assert len({hit.id for hit in hits}) == len(hits)
    return {hit.id for hit in hits}


BUILDS = {
    "named": "store = table.ArtifactsStore; "
    "store.write_bytes = lambda *g, real=store.write_bytes: (real(*g), '/tables/' in g[1] and hold())",
    "copied": "graph.create_graph_in_background = hold",
    "linked": "tables_building._choose_ef = hold",
    "written down": "building.commit = hold",
    "committed": "building.remove_unused = hold",
}


@pytest.mark.parametrize("after", list(BUILDS))
def test_a_killed_build(root: Path, folder: Path, index_database: str, after: str) -> None:
    shard = write_shard(root / "new.tar", {f"new{i}": {"png": encoded(random_image(i))} for i in range(NEW)})
    ask(root, folder, str(shard), build=2, store="pgvector", kind="hnsw")
    old, new = {f"old{i}" for i in range(OLD)}, {f"new{i}" for i in range(NEW)}

    kill_at(root, "b2", BUILDS[after])

    assert found(root) == (new if after == "committed" else old)
    assert run(root, 2) == 0, events(root, 2)
    assert found(root) == new
    assert (generation(root).build, generation(root).number, generation(root).kind) == (2, 2, "hnsw")
    assert len(tables(index_database)) == 2
    assert len(list((root / "indexes/gallery/tables").iterdir())) == 1
    assert events(root, 2)[-1]["type"] == "index.finished"


UPDATES = {
    "read": "tables_updating.apply_changes = hold",
    "written": "tables_updating.write_state = hold",
    "in the database": "updating.commit = hold",
    "in the store": "updating.commit = lambda *given, real=updating.commit: (real(*given), hold())",
}


@pytest.mark.parametrize("after", list(UPDATES))
def test_a_killed_update_is_applied_once(root: Path, folder: Path, after: str) -> None:
    items = [{"id": f"new{i}", "vector": row.tolist()} for i, row in enumerate(unit(30, 24))] + [{"id": "old3", "text": "a cat"}]
    ask_updates(
        root, folder, {1: {"items": items, "removed": ["old4"]}, 2: {"removed": ["new0"]}}, store="pgvector", kind="hnsw"
    )
    old = {f"old{i}" for i in range(OLD)}
    new = old - {"old4"} | {f"new{i}" for i in range(1, 30)}

    kill_at(root, "u2", UPDATES[after])

    assert found(root) == (new if after.startswith("in the") else old)
    assert run(root, "u2") == 0, events(root, "u2")
    assert found(root) == new
    done = generation(root)
    assert (done.number, done.count, done.applied) == (2, len(new), 2)
    assert events(root, "u2")[-1]["data"]["applied"] == 2
    assert list((root / "indexes/gallery/updates").iterdir()) == []


def test_tables_put_back_to_an_older_day_are_not_changed(root: Path, folder: Path, index_database: str) -> None:
    ask_updates(root, folder, {1: {"removed": ["old0"]}}, store="pgvector")
    assert run(root, "u1") == 0
    with connected_to(index_database) as connection:
        id = generation(root).segments[0].id
        connection.execute(f"UPDATE tinyclip_{id}_state SET generation = jsonb_set(generation, '{{number}}', '1')")

    ask_updates(root, folder, {2: {"removed": ["old1"]}}, store="pgvector")

    assert run(root, "u2") == 1
    assert "was restored to an earlier state; PUT the index again" in events(root, "u2")[-1]["message"]
