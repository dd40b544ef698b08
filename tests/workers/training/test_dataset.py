"""A job with `shards` indexes them at its start: all of them, or as many as it needs."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from tinyclip.artifacts.paths import DATASET_DOCUMENT, job_dataset
from tinyclip.schemas import JobSpec
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training import dataset
from tinyclip_workers.training.dataset import open_index_of, prepare_index

from tests.workers.attempts import Job
from tests.workers.auto_stages import spec_of
from tests.workers.shapes_data import write_shards

SHARDS, PAIRS, BATCH = 6, 16, 8


def attempt_at(folder: Path, *, steps: int = 1000) -> JobAttempt:
    shards = write_shards(folder / "inputs", shards=SHARDS, pairs=PAIRS)
    stage = {"name": "plain", "student": {"text": {}}, "train": {"steps": steps}}
    spec: JobSpec = spec_of(shards, stage, batch_size=BATCH)
    return JobAttempt.open(Job(folder / "store", spec).root, "job_1", 1)


def numbers(run: JobAttempt, batches: int) -> list[int]:
    """Return the samples of the first batches of training."""
    stream = PairStream(
        run.spec.data, open_index_of(run), batch_size=BATCH, image_size=8, tokenize=lambda _: torch.ones(4), seed=0
    )
    return [number for batch in islice(BatchLoader(stream, 0), batches) for number in batch.samples_B.tolist()]


def test_all_shards_are_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = attempt_at(tmp_path)

    pairs = prepare_index(run)
    monkeypatch.setattr(dataset, "expand_shards", lambda _: pytest.fail("the shards were read again"))

    assert pairs == prepare_index(run) == open_index_of(run).pairs == SHARDS * PAIRS
    assert sorted(numbers(run, 12)) == list(range(SHARDS * PAIRS))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_tasks_make_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, by_tasks = attempt_at(tmp_path / "here"), attempt_at(tmp_path / "tasks")
    prepare_index(here)
    monkeypatch.setattr(dataset, "SMALL_BYTES", 0)

    prepare_index(by_tasks)

    assert open_index_of(by_tasks).digest == open_index_of(here).digest
    assert numbers(by_tasks, 5) == numbers(here, 5)


@pytest.mark.parametrize("tasks", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_a_job_reads_no_more_of_a_large_set_than_it_needs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: bool
) -> None:
    if tasks:
        request.getfixturevalue("ray_cluster")
        monkeypatch.setattr(dataset, "SMALL_BYTES", 0)
    monkeypatch.setattr(dataset, "READ_WHOLE_BYTES", 0)
    run = attempt_at(tmp_path, steps=5)  # 40 pairs, of three shards

    pairs = prepare_index(run)

    index = open_index_of(run)
    assert pairs == index.pairs == sum(shard.pairs for shard in index.shards) == 3 * PAIRS
    assert len(set(numbers(run, 6))) == 48


def test_shards_without_a_usable_pair_leave_no_index(tmp_path: Path) -> None:
    run = attempt_at(tmp_path)
    run = JobAttempt(run.store, run.document.model_copy(update={"spec": without_captions(run.spec)}), 1)

    with pytest.raises(DataError, match=r"no pair of the shards can be used .*it has no nothing.*check image_key, caption_key"):
        prepare_index(run)

    assert not run.store.exists(f"{job_dataset('job_1')}/{DATASET_DOCUMENT}")


def without_captions(spec: JobSpec) -> JobSpec:
    document = json.loads(spec.model_dump_json())
    document["data"]["train"]["caption_key"] = "nothing"
    return JobSpec.model_validate(document)
