"""Reading many shards: broken ones are skipped and counted."""

from pathlib import Path

import pytest
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.shards import read_shards

from tests.workers.shapes_data import write_shards


def test_a_truncated_shard_yields_its_readable_samples_and_is_counted(tmp_path: Path) -> None:
    write_shards(tmp_path)
    truncated = tmp_path / "train-000001.tar"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2 + 700])
    skipped = Skipped()

    samples = list(read_shards(expand_shards(str(tmp_path / "train-*.tar")), skipped))

    assert 48 < len(samples) < 96
    assert skipped.shards == 1


def test_only_unreadable_shards_raise_an_error_with_the_first_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 2 shards can be read.*missing-0\.tar"):
        list(read_shards([str(tmp_path / "missing-0.tar"), str(tmp_path / "missing-1.tar")], Skipped()))
