"""A stored index has the blocks and values of one in memory, whatever the number of its shards."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tinyclip.artifacts.paths import dataset_samples, dataset_values
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index import dataset_index, values
from tinyclip_workers.data.index.dataset_index import (
    DatasetIndex,
    StoredSamples,
    digest_of,
    index_in_memory,
    open_index,
    write_index,
    write_shard_samples,
)
from tinyclip_workers.data.index.rows import SampleRow, ShardRow, Use, cut_blocks, samples_table
from tinyclip_workers.data.index.scanning import ScannedShard
from tinyclip_workers.data.stream.order import SampleOrder

from tests.s3 import BUCKET, s3_server

SHARDS, SAMPLES = 40, 30


def table_of(shard: int, *, with_values: bool = True) -> pa.Table:
    """Samples of different lengths, of which every fifth is held out."""
    rng = np.random.default_rng(shard)
    lengths = rng.integers(1, 60_000, SAMPLES)
    starts = np.cumsum(lengths) - lengths
    return samples_table([
        SampleRow(
            f"{shard}-{n}", int(starts[n]), int(lengths[n]), use=Use.HELD_OUT if n % 5 == 4 else Use.TRAINING,
            distinct=int(rng.integers(1, 50)) if with_values else 0, more_captions=[f"more {n}"] if n % 2 else None,
        )
        for n in range(SAMPLES)
    ])  # fmt: skip


def write(store: ArtifactsStore, *, with_values: bool = True) -> tuple[DatasetIndex, DatasetIndex]:
    """Write an index; return it as it is opened, and the same one in memory."""
    scanned = []
    for shard in range(SHARDS):
        table = table_of(shard, with_values=with_values)
        pairs = SAMPLES - SAMPLES // 5
        scanned.append(ScannedShard(ShardRow(f"{shard}.tar", 1_000_000, f"{shard:064x}", SAMPLES, pairs), table, Skipped()))
        write_shard_samples(store, "v", shard, table)
    shards = [each.shard for each in scanned]
    write_index(store, "v", shards)
    return open_index(store, "v", digest_of(shards)), index_in_memory(scanned)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    return ArtifactsStore(str(tmp_path / "artifacts"))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ArtifactsStore]:
    monkeypatch.setenv(values.DATA_CACHE, str(tmp_path / "cache"))
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield ArtifactsStore(f"s3://{BUCKET}/artifacts")


class TestBlocks:
    @pytest.mark.parametrize("size", [1, 1000, 100_000, 10_000_000])
    def test_each_is_the_shortest_of_at_least_the_size(self, size: int) -> None:
        rows = table_of(0).to_pylist()

        expected, first = [], 0
        for row, sample in enumerate(rows):
            length = sample["offset"] + sample["length"] - rows[first]["offset"]
            if length >= size or row == SAMPLES - 1:
                pairs = sum(each["use"] == Use.TRAINING for each in rows[first : row + 1])
                expected.append((3, first, row + 1 - first, pairs, rows[first]["offset"], length))
                first = row + 1
        assert cut_blocks(3, table_of(0), size) == expected

    def test_a_shard_without_samples_has_none(self) -> None:
        assert cut_blocks(0, samples_table([]), 1000) == []


class TestStored:
    def test_it_equals_the_one_in_memory(self, store: ArtifactsStore) -> None:
        stored, in_memory = write(store)

        assert stored.shards == in_memory.shards
        assert stored.blocks.table() == in_memory.blocks.table()
        every = np.arange(stored.pairs)
        assert (stored.values(every) == in_memory.values(every)).all()
        assert stored.load_samples(7).table == in_memory.load_samples(7).table

    def test_it_has_the_same_order(self, store: ArtifactsStore) -> None:
        orders = [SampleOrder(index, batch_size=24, seed=1, distinct=True) for index in write(store)]

        for epoch in (0, 1):
            found = [order.epoch(epoch) for order in orders]
            for batch in range(orders[0].batches):
                one, other = (each.batch(batch) for each in found)
                assert (one.block_M == other.block_M).all()
                assert (one.pair_M == other.pair_M).all()

    def test_captions_of_other_files_are_found_by_row(self, store: ArtifactsStore) -> None:
        samples = write(store)[0].load_samples(3)

        assert [samples.more_captions(row) for row in range(4)] == [[], ["more 1"], [], ["more 3"]]


class TestSamples:
    def test_their_memory_is_bounded(self, store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        index, _ = write(store)
        size = index.load_samples(0).nbytes
        monkeypatch.setattr(dataset_index, "CACHED_BYTES", 3 * size)
        load = StoredSamples(store.root, "v")
        reads: list[str] = []
        read = ArtifactsStore.read_bytes
        monkeypatch.setattr(ArtifactsStore, "read_bytes", lambda self, path: (reads.append(path), read(self, path))[1])

        for shard in (0, 1, 0, 2, 3, 0):
            assert load(shard).key(0) == f"{shard}-0"
            assert load._cache is not None
            assert sum(each.nbytes for each in load._cache._kept.values()) <= 3 * size + 100

        assert reads == [dataset_samples("v", shard) for shard in (0, 1, 2, 3)]

    def test_a_pickle_has_none(self, store: ArtifactsStore) -> None:
        load = write(store)[0].load_samples
        before = len(pickle.dumps(load))
        load(0)

        again = pickle.loads(pickle.dumps(load))

        assert len(pickle.dumps(load)) == before < 1000
        assert again(1).key(0) == "1-0"


class TestValues:
    def test_any_pairs_are_found_in_any_order(self, store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(values, "GAP", 3)
        stored, in_memory = write(store)
        pairs = np.random.default_rng(0).integers(0, stored.pairs, 200)

        assert (stored.values(pairs) == in_memory.values(pairs)).all()
        assert len(stored.values(pairs[:0])) == 0

    def test_without_any_there_is_no_file(self, store: ArtifactsStore) -> None:
        write(store)
        assert store.exists(dataset_values("v"))

        stored, _ = write(store, with_values=False)

        assert not store.exists(dataset_values("v"))
        assert not stored.values(np.arange(stored.pairs)).any()

    def test_a_file_that_is_too_short_is_named(self, store: ArtifactsStore) -> None:
        stored, _ = write(store)
        store.write_bytes(dataset_values("v"), store.read_bytes(dataset_values("v"))[:80])

        with pytest.raises(OSError, match=r"values\.bin is too short; register the data set again"):
            stored.values(np.arange(stored.pairs))

    def test_a_node_copies_them_once(
        self, remote: ArtifactsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(values, "REQUEST_BYTES", 1000)
        stored, in_memory = write(remote)
        every = np.arange(stored.pairs)
        (tmp_path / "cache").mkdir()
        unfinished = tmp_path / "cache" / f"{stored.digest[:32]}-values.tmp"  # of a process that was killed
        unfinished.write_bytes(b"x" * 1_000_000)

        assert (stored.values(every) == in_memory.values(every)).all()
        remote.remove("v")
        again = pickle.loads(pickle.dumps(stored.load_values))
        monkeypatch.setattr(ArtifactsStore, "exists", lambda *_: True)
        assert (again(every) == in_memory.values(every)).all()
        assert [path.suffix for path in sorted((tmp_path / "cache").iterdir())] == [".lock", ".values"]

    def test_old_copies_are_deleted(self, remote: ArtifactsStore, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        cache.mkdir()
        for number in range(6):
            (cache / f"{number}.values").write_bytes(b"")

        stored, _ = write(remote)
        stored.values(np.arange(3))

        assert len(list(cache.glob("*.values"))) == values.MAX_FILES
        assert (cache / f"{stored.digest[:32]}-values.values").exists()
