"""Scanning shards: every sample is found again at its place."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from tinyclip.schemas.spec import TrainData
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.dataset_index import index_in_memory
from tinyclip_workers.data.index.rows import Use, from_parquet, samples_table, to_parquet
from tinyclip_workers.data.index.scanning import content_crc, scan_shard
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.shards import read_placed, read_shard

from tests.workers.shapes_data import write_shards

TRAIN = TrainData(shards="unused", image_key=["png"], holdout=0.3)


@pytest.fixture
def shard(tmp_path: Path) -> str:
    write_shards(tmp_path, shards=1, pairs=20)
    return str(tmp_path / "train-000000.tar")


def test_every_sample_can_be_read_again_from_its_place(shard: str) -> None:
    scanned = scan_shard(shard, TRAIN)
    data = Path(shard).read_bytes()

    for row, sample in zip(scanned.samples.to_pylist(), read_shard(shard), strict=True):
        [again] = [placed.sample for placed in read_placed(shard, io.BytesIO(data[row["offset"] :][: row["length"]]))]
        assert again == sample
        assert row["crc"] == content_crc(again)
        assert row["key"].decode() == sample["__key__"]
    assert scanned.shard.bytes == len(data)
    assert scanned.skipped == Skipped()


def test_held_out_samples_are_no_training_pairs(shard: str) -> None:
    scanned = scan_shard(shard, TRAIN)

    held_out = [is_held_out(key.decode(), 0.3) for key in scanned.samples.column("key").to_pylist()]
    assert (scanned.samples.column("use").to_numpy() == np.where(held_out, Use.HELD_OUT, Use.TRAINING)).all()
    assert scanned.shard.pairs == 20 - sum(held_out) < 20


def test_a_compressed_shard_has_places_in_its_decompressed_tar(shard: str, tmp_path: Path) -> None:
    packed = tmp_path / "1.tar.gz"
    packed.write_bytes(gzip.compress(Path(shard).read_bytes()))

    scanned = scan_shard(str(packed), TRAIN)

    assert scanned.shard.sequential
    assert scanned.samples.drop_columns("key") == scan_shard(shard, TRAIN).samples.drop_columns("key")


def test_samples_before_the_end_of_a_truncated_shard_are_kept(shard: str) -> None:
    data = Path(shard).read_bytes()
    Path(shard).write_bytes(data[: len(data) // 2 + 100])

    scanned = scan_shard(shard, TRAIN)

    assert (scanned.skipped.shards, scanned.skipped.samples) == (1, 0)
    assert "it is truncated" in scanned.skipped.examples[0]
    assert 0 < len(scanned.samples) < 20


def test_blocks_cover_the_samples_without_gaps(shard: str) -> None:
    index = index_in_memory([scan_shard(shard, TRAIN)])

    blocks = index.blocks
    assert (blocks.first[1:] == blocks.first[:-1] + blocks.rows[:-1]).all()
    assert blocks.rows.sum() == 20
    assert index.pairs == index.shards[0].pairs == blocks.pairs.sum()


def test_the_same_samples_are_the_same_bytes(shard: str) -> None:
    one, two = (to_parquet(scan_shard(shard, TRAIN).samples) for _ in range(2))

    assert one == two
    assert from_parquet(one) == scan_shard(shard, TRAIN).samples
    assert len(from_parquet(to_parquet(samples_table([])))) == 0
