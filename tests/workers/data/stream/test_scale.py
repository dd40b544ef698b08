"""Time and memory of a large index do not grow with its samples: 4 million of them, 256 workers, batches of 32,768."""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import islice

import numpy as np
import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.index.dataset_index import REMOTE_BLOCK_BYTES, DatasetIndex
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.index.scanning import content_crc
from tinyclip_workers.data.shards import read_placed
from tinyclip_workers.data.stream.fetching import BlockReader, ReadStatistics
from tinyclip_workers.data.stream.order import SampleOrder
from tinyclip_workers.data.stream.pairs import MIN_READ_BYTES, PairStream, read_ahead
from tinyclip_workers.data.stream.positions import DataPosition

from bench.scale_data import SyntheticSet, SyntheticStore

DATA = SyntheticSet(shards=400, samples=10_000, distinct=True)
BATCH, WORKERS, RANK = 32_768, 256, 17
SLOTS = range(RANK * BATCH // WORKERS, (RANK + 1) * BATCH // WORKERS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], DatasetIndex]:
    """A function that opens the index; it fails if the samples of a shard are loaded."""
    store = ArtifactsStore(str(tmp_path_factory.mktemp("artifacts")))
    digest = DATA.write(store, "v")

    def load(number: int) -> ShardSamples:
        raise AssertionError(f"the samples of shard {number} are loaded")

    return lambda: replace(DATA.open(store, "v", digest), load_samples=load)


@pytest.fixture(scope="module")
def counting() -> float:
    """The CPU time of counting the samples in Python, which times are compared with: about a tenth of a second."""
    return least_seconds(lambda: sum(1 for _ in range(DATA.shards * DATA.samples)))


def least_seconds(call: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


class TestOrder:
    def test_epochs_and_seeks_take_less_time_than_counting_the_samples(
        self, stored: Callable[[], DatasetIndex], counting: float
    ) -> None:
        order = SampleOrder(stored(), batch_size=BATCH, seed=0)

        def seek(percent: int) -> float:
            return least_seconds(lambda: order.epoch(percent).batch(order.batches * percent // 100, SLOTS))

        assert max(seek(percent) for percent in (0, 50, 90)) < counting / 4

    def test_opening_it_does_too(self, stored: Callable[[], DatasetIndex], counting: float) -> None:
        assert least_seconds(stored) < counting

    def test_distinct_batches_read_no_samples(self, stored: Callable[[], DatasetIndex], counting: float) -> None:
        order = SampleOrder(stored(), batch_size=BATCH, seed=0, distinct=True)
        epoch, index = order.epoch(1), order.index

        taken = least_seconds(lambda: order.epoch(1).batch(9, SLOTS))
        place = epoch.batch(9)

        assert taken < 30 * counting  # for the 262,144 pairs of 8 batches
        values = index.values(index.first_pairs[epoch.block_order[place.block_M]] + place.pair_M)
        assert len(np.unique(values)) == BATCH

    @pytest.mark.long
    def test_their_memory_does_not_depend_on_the_samples(self, stored: Callable[[], DatasetIndex]) -> None:
        for distinct, most_megabytes in ((False, 8), (True, 64)):
            tracemalloc.start()
            order = SampleOrder(stored(), batch_size=BATCH, seed=0, distinct=distinct)
            epoch = order.epoch(2)
            for number in (0, 1, order.batches - 1):
                epoch.batch(number, SLOTS)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < most_megabytes << 20


class TestReading:
    @pytest.fixture(autouse=True)
    def store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_workers.runtime.user_files.open_filesystem", lambda url: (SyntheticStore(DATA), url))

    @pytest.mark.parametrize("processes", [1, 8])
    def test_a_worker_reads_each_block_once(self, stored: Callable[[], DatasetIndex], processes: int) -> None:
        index, statistics, blocks, held = replace(stored(), load_samples=DATA.load_samples), ReadStatistics(), set[int](), 0
        stream = stream_of(index, DataPosition(0, 60))

        for slots in stream.parts(processes):
            order = stream._order.epoch(0)
            reader = BlockReader(order, slots, stream._max_bytes(slots), statistics)
            for place in read_ahead((order.batch(number, slots) for number in range(60, 80)), reader):
                assert all(each.sample is not None for each in reader.read(place))
                blocks |= set(place.block_M.tolist())
                held = max(held, reader._held)
            reader.close()

        readers = len(stream._order.readers_of(stream.slots))
        # each of the readers has one block beyond its pairs, and may have read the next one ahead
        assert len(blocks) <= statistics.requests <= len(blocks) + readers
        assert np.median(statistics.sizes) >= REMOTE_BLOCK_BYTES
        assert held <= 3 * readers * REMOTE_BLOCK_BYTES < MIN_READ_BYTES

    def test_many_readers_keep_the_limit_and_read_nothing_twice(self, stored: Callable[[], DatasetIndex]) -> None:
        index = replace(stored(), load_samples=DATA.load_samples)
        stream, slots, limit = stream_of(index, DataPosition()), range(BATCH // 16), 128 << 20  # 32 readers
        order, statistics = stream._order.epoch(0), ReadStatistics()
        reader = BlockReader(order, slots, limit, statistics)

        used = 0
        for place in read_ahead((order.batch(number, slots) for number in range(6)), reader):
            used += len(reader.read(place))
            assert reader._held <= limit + REMOTE_BLOCK_BYTES
        reader.close()

        # without pieces, blocks of 8 MB would be read again for each batch: 6 x 32 of them
        assert statistics.bytes < 2 * used * 30_000
        assert reader._split > 1


class TestSyntheticSet:
    def test_its_bytes_are_the_samples_of_its_index(self) -> None:




        samples = DATA.load_samples(7)
        start, stop = int(samples.offset_N[20]), int(samples.offset_N[24])

        read = [each.sample for each in read_placed("", BytesIO(DATA.read(7, start, stop)))]

        assert [each["__key__"] for each in read] == [samples.key(row) for row in range(20, 24)]
        assert [content_crc(each) for each in read] == samples.crc_N[20:24].tolist()

    def test_its_images_can_be_decoded(self, stored: Callable[[], DatasetIndex], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_workers.runtime.user_files.open_filesystem", lambda url: (SyntheticStore(DATA), url))
        stream = stream_of(replace(stored(), load_samples=DATA.load_samples), DataPosition(1, 100))

        [part] = islice(stream._parts(range(SLOTS.start, SLOTS.start + 64)), 1)

        assert bool(part.good_B.all())
        assert part.images_BCHW.shape == (64, 3, 32, 32)


def stream_of(index: DatasetIndex, start: DataPosition) -> PairStream:
    spec = DataSpec.model_validate({"train": {"shards": "s3://synthetic/0.tar"}})
    return PairStream(
        spec, index, batch_size=BATCH, image_size=32, tokenize=lambda _: torch.ones(4), seed=1, rank=RANK, world_size=WORKERS,
        start=start,
    )  # fmt: skip
