"""A registration that is killed anywhere, in its driver or in a task, ends in the same bytes as one that is not."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from tinyclip.artifacts.store import ArtifactsStore

from tests.workers import dataset_jobs as jobs
from tests.workers.killed_jobs import kill_at
from tests.workers.ray_jobs import RAY_MARKS
from tests.workers.ray_workers import kill_ray_processes
from tests.workers.shapes_data import write_shards

pytestmark = RAY_MARKS

SHARDS, PAIRS, FEW = 6, 300, 20
WRITE = "tinyclip.artifacts.store.ArtifactsStore.write_bytes"
REMOVE = "tinyclip.artifacts.store.ArtifactsStore.remove"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"), shards=SHARDS, pairs=PAIRS)


@pytest.fixture(scope="module")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards that are scanned in a moment, for a driver that scans them itself."""
    return write_shards(tmp_path_factory.mktemp("small"), shards=SHARDS, pairs=FEW)


@pytest.fixture(autouse=True)
def cluster_address() -> Iterator[None]:
    """Let the jobs of other processes run their tasks on this process's cluster, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shards: str, ray_cluster: None) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    jobs.request(root, shards, holdout=0.1)
    assert jobs.run_job(root) == 0
    return jobs.files(root)


@pytest.fixture(scope="module")
def small_undisturbed(tmp_path_factory: pytest.TempPathFactory, small_shards: str) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("small-undisturbed")
    jobs.register(root, small_shards, holdout=0.1)
    return jobs.files(root)


def scanned(root: Path) -> int:
    return len(ArtifactsStore(str(root)).find(f"datasets/{jobs.NAME}/1/findings"))


def test_a_version_has_its_index_and_report_and_nothing_else(undisturbed: dict[str, bytes]) -> None:
    samples = {f"samples/{shard:06d}.parquet" for shard in range(SHARDS)}

    assert undisturbed.keys() == {"blocks.parquet", "dataset.json", "report.json", "shards.parquet", *samples}


def test_a_driver_that_is_killed_while_shards_are_scanned(tmp_path: Path, shards: str, undisturbed: dict[str, bytes]) -> None:
    jobs.request(tmp_path, shards, holdout=0.1)
    command = [sys.executable, "-m", "tinyclip_workers.jobs", *jobs.job_arguments(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while scanned(tmp_path) == 0:
        assert driver.poll() is None, "the job ended before it could be killed"
        time.sleep(0.002)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # a task may be about to write
    finished = scanned(tmp_path)
    assert 0 < finished < SHARDS
    before = {file.path: file.modified_at for file in ArtifactsStore(str(tmp_path)).find(f"datasets/{jobs.NAME}/1/samples")}

    jobs.request(tmp_path, shards, holdout=0.1, attempt=2)
    assert jobs.run_job(tmp_path, attempt=2) == 0

    assert jobs.files(tmp_path) == undisturbed
    after = {file.path: file.modified_at for file in ArtifactsStore(str(tmp_path)).find(f"datasets/{jobs.NAME}/1/samples")}
    assert sum(after[path] == time for path, time in before.items()) >= finished, "finished shards are not scanned again"


@pytest.mark.parametrize(
    ("target", "path", "after"),
    [
        (WRITE, "shards.parquet", False),
        (WRITE, "blocks.parquet", True),
        (WRITE, "report.json", True),
        (WRITE, "dataset.json", False),
        (WRITE, "dataset.json", True),
        (REMOVE, "findings", True),
    ],
)
def test_a_driver_that_is_killed_while_it_commits(
    tmp_path: Path, small_shards: str, small_undisturbed: dict[str, bytes], target: str, path: str, after: bool
) -> None:
    jobs.request(tmp_path, small_shards, holdout=0.1)
    settings = dict.fromkeys(jobs.TASK_RUNNERS, jobs.run_tasks_here)
    kill_at(jobs.job_arguments(tmp_path), tmp_path / "reached", target, path=path, after=after, settings=settings)

    jobs.request(tmp_path, small_shards, holdout=0.1, attempt=2)
    with jobs.without_ray():
        assert jobs.run_job(tmp_path, attempt=2) == 0

    assert jobs.files(tmp_path) == small_undisturbed
    assert jobs.events(tmp_path, attempt=2)[-1]["type"] == "dataset.finished"


def test_tasks_that_are_killed(tmp_path: Path, shards: str, undisturbed: dict[str, bytes]) -> None:
    jobs.request(tmp_path, shards, holdout=0.1)
    killed: list[int] = []

    def kill_two() -> None:
        while len(killed) < 2:
            killed.extend(kill_ray_processes("scan_to_part"))
            time.sleep(0.02)

    killer = threading.Thread(target=kill_two, daemon=True)
    killer.start()
    assert jobs.run_job(tmp_path) == 0
    killer.join()

    assert os.getpid() not in killed
    assert jobs.files(tmp_path) == undisturbed


def test_a_superseded_attempt_writes_nothing_more(tmp_path: Path, shards: str) -> None:
    jobs.request(tmp_path, shards)
    watcher = threading.Thread(target=lambda: _supersede_after_first_part(tmp_path, shards), daemon=True)
    watcher.start()

    assert jobs.run_job(tmp_path) == 0
    watcher.join()

    assert "dataset.json" not in jobs.files(tmp_path)
    assert [event["type"] for event in jobs.events(tmp_path) if event["type"] == "dataset.finished"] == []


def _supersede_after_first_part(root: Path, shards: str) -> None:
    while scanned(root) == 0:
        time.sleep(0.002)
    jobs.request(root, shards, attempt=2)
