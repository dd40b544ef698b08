"""What the job that makes a reinforcement does with broken data and missing teachers, and in other types; without a cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tinyclip_workers import jobs
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.samples import captions_of
from tinyclip_workers.data.shards import read_shard

from tests.workers.local_ray import LocalRay
from tests.workers.registered import events_of, reinforcement_arguments, request_reinforcement
from tests.workers.reinforcing.reinforced import Reinforced, rows_of
from tests.workers.shapes_data import write_shards


@pytest.fixture(autouse=True, scope="module")
def _without_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("job", "pool"):
            patch.setattr(f"tinyclip_workers.reinforcing.{module}.ray", LocalRay(cpus=2))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _without_cluster: None, shards: str, teacher: str) -> Reinforced:
    """A reinforcement in the usual type."""
    reinforced = Reinforced(tmp_path_factory.mktemp("whole"), shards, teacher={"model": teacher})
    assert reinforced.run() == 0
    return reinforced


def test_a_superseded_attempt_stops(tmp_path: Path, shards: str, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": teacher})
    monkeypatch.setattr("tinyclip_workers.reinforcing.job.WANTED_SECONDS", 0.0)
    monkeypatch.setattr("tinyclip_workers.reinforcing.pool.PROGRESS_SECONDS", 0.0)
    request_reinforcement(reinforced.store, 2, **reinforced.post)

    assert jobs.main(reinforcement_arguments(tmp_path, 1)) == 0
    assert not any(path.endswith("reinforcement.json") for path in reinforced.files())


def test_unreadable_samples_are_counted(tmp_path: Path, teacher: str) -> None:
    pattern = write_shards(tmp_path / "data", shards=1, pairs=8)
    path = tmp_path / "data" / "train-000000.tar"
    data = path.read_bytes()
    at = data.index(b"IDAT", data.index(b"IDAT") + 4)  # the pixels of the second image
    path.write_bytes(data[: at + 4] + b"\xff" * 16 + data[at + 20 :])
    reinforced = Reinforced(tmp_path / "store", pattern, teacher={"model": teacher})

    assert reinforced.run() == 0
    document = reinforced.document()
    assert document.skipped == 1
    assert document.samples == reinforced.version.pairs - 1


def test_a_shard_that_has_changed_is_refused(tmp_path: Path, teacher: str) -> None:
    pattern = write_shards(tmp_path / "data", shards=1, pairs=8)
    reinforced = Reinforced(tmp_path / "store", pattern, teacher={"model": teacher})
    write_shards(tmp_path / "data", shards=1, pairs=8, size=40)

    assert reinforced.run() == 1
    [failed] = [event for event in events_of(reinforced.store, reinforced.folder) if event["type"] == "reinforcement.failed"]
    assert failed["data"]["code"] == "unusable_data"
    assert "has changed" in failed["message"]


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, shards: str) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": f"local-dir:{tmp_path}/nowhere"})

    assert reinforced.run() == 1
    [failed] = [event for event in events_of(reinforced.store, reinforced.folder) if event["type"] == "reinforcement.failed"]
    assert (failed["data"]["code"], failed["data"]["pointer"]) == ("unusable_teacher", "/teacher/model")


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_other_types(dtype: str, whole: Reinforced, tmp_path: Path, shards: str, teacher: str) -> None:
    reinforced = Reinforced(tmp_path, shards, teacher={"model": teacher}, dtype=dtype, captions="first")
    assert reinforced.run() == 0
    stored, before = (StoredReinforcement.open(each.store, each.folder) for each in (reinforced, whole))

    [url, *_] = sorted(Path(whole.version.source.shards).parent.glob("*.tar"))
    for row, sample in enumerate(read_shard(str(url))):
        if row in rows_of(whole, 0):
            caption, other = captions_of(sample, "json.captions")
            for own, expected in zip(stored.targets(0, row, 1, caption)[0], before.targets(0, row, 1, caption)[0], strict=True):
                assert torch.cosine_similarity(own, expected.float(), dim=0) > 0.9995
            with pytest.raises(ValueError, match="has no embeddings of a caption"):
                stored.targets(0, row, 1, other)
    assert json.loads(reinforced.files()[f"{reinforced.folder}/reinforcement.json"])["dtype"] == dtype
