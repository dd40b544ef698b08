"""The order of an epoch: every pair once, the same for any division of the slots, and found again from any position."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.rows import Blocks, SampleRow, ShardRow, ShardSamples, Use, blocks_of, cut_blocks, samples_table
from tinyclip_workers.data.stream.order import SampleOrder, reader_count, separate

BYTES = 1000


def index_of(shards: int, samples: int, *, values: int = 0, sequential: bool = False) -> DatasetIndex:
    """Every seventh sample is held out; values of a `distinct_key` repeat after `values` samples."""
    tables = []
    for shard in range(shards):
        rows = [
            SampleRow(
                f"{shard}-{n}", n * BYTES, BYTES, use=Use.HELD_OUT if n % 7 == 6 else Use.TRAINING,
                distinct=1 + (shard * samples + n) % values if values else 0,
            )
            for n in range(samples)
        ]  # fmt: skip
        tables.append(samples_table(rows))
    blocks: Blocks = blocks_of([block for n, table in enumerate(tables) for block in cut_blocks(n, table, 5 * BYTES)])
    found = [ShardSamples(table) for table in tables]
    sizes = [ShardRow(f"{n}.tar", samples * BYTES, None, samples, len(found[n].training_rows), sequential) for n in range(shards)]
    return DatasetIndex(sizes, blocks, found.__getitem__, "ab" * 32)


def pairs_of(order: SampleOrder, epoch: int, batch: int, slots: range | None = None) -> list[tuple[int, int]]:
    """Return shard and row of the pairs of a batch."""
    index, found = order.index, order.epoch(epoch)
    place, pairs = found.batch(batch, slots), []
    for block, pair in zip(place.block_M, place.pair_M, strict=True):
        number = int(found.block_order[block])
        samples = index.load_samples(int(index.blocks.shard[number]))
        first = int(np.searchsorted(samples.training_rows, index.blocks.first[number]))
        pairs.append((int(index.blocks.shard[number]), int(samples.training_rows[first + pair])))
    return pairs


@pytest.fixture(params=[0, 10, 10_000], ids=["unshuffled", "small-windows", "one-window"])
def order(request: Any) -> SampleOrder:
    return SampleOrder(index_of(6, 40), batch_size=24, seed=1, shuffle=request.param)


class TestEpoch:
    def test_it_has_every_training_pair_once_but_those_that_fill_no_batch(self, order: SampleOrder) -> None:
        pairs = [pair for batch in range(order.batches) for pair in pairs_of(order, 0, batch)]

        assert len(pairs) == len(set(pairs)) == order.batches * 24
        assert order.index.pairs - len(pairs) < 24
        assert all(row % 7 != 6 for _, row in pairs)

    def test_other_epochs_and_seeds_have_other_orders(self, order: SampleOrder) -> None:
        other = SampleOrder(order.index, batch_size=24, seed=2, shuffle=order.shuffle)

        same = [pairs_of(order, 0, 0) == pairs_of(*which, 0) for which in ((order, 1), (other, 0))]
        assert same == [not order.shuffle] * 2

    def test_the_end_that_is_left_out_is_another_one_in_each_epoch(self) -> None:
        order = SampleOrder(index_of(6, 40), batch_size=24, seed=1)
        whole = {pair for batch in range(order.batches) for pair in pairs_of(order, 0, batch)}

        left_out = [whole - {pair for batch in range(order.batches) for pair in pairs_of(order, e, batch)} for e in (1, 2)]

        assert left_out[0] != left_out[1]

    def test_an_unshuffled_epoch_has_the_order_of_the_shards(self) -> None:
        order = SampleOrder(index_of(2, 40), batch_size=10, seed=1, shuffle=0)

        pairs = [pair for batch in range(order.batches) for pair in pairs_of(order, 3, batch)]

        assert pairs == sorted(pairs)

    def test_a_batch_beyond_its_end_is_refused(self, order: SampleOrder) -> None:
        for number in (-1, order.batches, order.batches + 100):
            with pytest.raises(IndexError, match=f"an epoch has {order.batches} batches, there is no batch {number}"):
                order.epoch(0).batch(number)

    def test_blocks_of_a_sequential_shard_stay_in_order(self) -> None:
        order = SampleOrder(index_of(5, 40, sequential=True), batch_size=8, seed=1)

        blocks = order.epoch(0).block_order

        shards = order.index.blocks.shard[blocks]
        assert np.count_nonzero(np.diff(shards)) == 4
        assert all(np.all(np.diff(blocks[shards == shard]) == 1) for shard in range(5))


class TestSlots:
    @pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 8])
    def test_the_batches_of_any_number_of_workers_are_the_same(self, order: SampleOrder, workers: int) -> None:
        size = 24 // workers
        for batch in (0, 1, order.batches - 1):
            parts = [pairs_of(order, 1, batch, range(worker * size, (worker + 1) * size)) for worker in range(workers)]
            assert list(chain.from_iterable(parts)) == pairs_of(order, 1, batch)

    def test_slots_lie_in_the_stretch_that_they_are_read_from(self, order: SampleOrder) -> None:
        epoch, slots = order.epoch(2), range(6, 12)
        places = np.concatenate([epoch._batch_places(b, order.readers_of(slots), slots) for b in range(order.batches)])

        assert set(places.tolist()) <= set(epoch.stretch(slots))

    def test_a_late_batch_needs_no_batch_before_it(self, order: SampleOrder) -> None:
        fresh = SampleOrder(order.index, batch_size=24, seed=1, shuffle=order.shuffle)

        assert pairs_of(fresh, 4, order.batches - 1) == [pairs_of(order, 4, b) for b in range(order.batches)][-1]


class TestReaders:
    @pytest.mark.parametrize(
        ("batch_size", "readers"), [(1, 1), (7, 7), (64, 64), (96, 48), (256, 64), (4096, 256), (32768, 2048)]
    )
    def test_their_number_divides_the_batch(self, batch_size: int, readers: int) -> None:
        assert reader_count(batch_size) == readers

    def test_every_batch_takes_the_same_number_from_each(self) -> None:
        order = SampleOrder(index_of(6, 40), batch_size=24, seed=1, readers=4)
        epoch = order.epoch(0)

        for batch in range(order.batches):
            readers = epoch._batch_places(batch, range(4), range(24)) // epoch.length
            assert readers.tolist() == [reader for reader in range(4) for _ in range(6)]

    def test_a_window_is_bounded_by_bytes(self) -> None:
        index = index_of(6, 40)
        order = SampleOrder(index, batch_size=8, seed=1, shuffle=10_000, shuffle_bytes=80 * BYTES, readers=2)

        mean = index.blocks.length.sum() / index.pairs
        assert order.window == int(80 * BYTES / 2 / mean) // 2
        places = order.epoch(0)._reader_places(1, 0, order.epoch(0).length)
        assert np.abs(places - places.min() - np.arange(len(places))).max() < order.window

    def test_a_window_has_at_least_the_pairs_of_a_batch(self) -> None:
        assert SampleOrder(index_of(6, 40), batch_size=24, seed=1, shuffle=10, readers=2).window == 12


class TestDistinct:
    @pytest.mark.parametrize("readers", [1, 4, 24])
    def test_no_value_is_twice_in_a_batch(self, readers: int) -> None:
        order = SampleOrder(index_of(6, 40, values=60), batch_size=24, seed=1, distinct=True, readers=readers)

        values = [self.values_of(order, batch) for batch in range(order.batches)]

        assert all(len(set(each)) == 24 for each in values)
        pairs = [pair for batch in range(order.batches) for pair in pairs_of(order, 0, batch)]
        assert len(set(pairs)) == len(pairs)

    def test_any_worker_sees_the_same_exchanges(self) -> None:
        order = SampleOrder(index_of(6, 40, values=60), batch_size=24, seed=1, distinct=True)

        assert pairs_of(order, 0, 3, range(12)) + pairs_of(order, 0, 3, range(12, 24)) == pairs_of(order, 0, 3)

    def test_pairs_without_a_value_are_distinct_from_all(self) -> None:
        values_MN = np.array([[0, 0, 5, 5], [0, 0, 6, 7]], dtype=np.uint64)
        places_MN = np.arange(8).reshape(2, 4)

        separate(places_MN, values_MN, 4)

        assert [len({*row} - {0}) for row in values_MN.tolist()] == [np.count_nonzero(row) for row in values_MN]
        assert sorted(places_MN.ravel().tolist()) == list(range(8))

    def test_values_that_cannot_be_separated_stay(self) -> None:
        values_MN = np.full((2, 3), 9, dtype=np.uint64)

        separate(np.arange(6).reshape(2, 3), values_MN, 1)

        assert (values_MN == 9).all()

    @staticmethod
    def values_of(order: SampleOrder, batch: int) -> list[int]:
        load: Callable[[int], ShardSamples] = order.index.load_samples
        return [int(load(shard).distinct_N[row]) for shard, row in pairs_of(order, 0, batch)]
