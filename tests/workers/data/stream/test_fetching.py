"""Reading of the shards: each byte once by all loader processes together, from any position, in large requests."""

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import s3fs
import torch
from PIL import Image
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.index.dataset_index import REMOTE_BLOCK_BYTES, DatasetIndex, index_shards
from tinyclip_workers.data.stream import fetching
from tinyclip_workers.data.stream.fetching import BlockReader, ReadStatistics
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.runtime.user_files import RangeReader

from tests.s3 import BUCKET, bucket_files, s3_server
from tests.workers.shapes_data import write_shards
from tests.workers.shards import write_shard


def stream_of(
    index: DatasetIndex,
    shards: str,
    *,
    batch_size: int = 24,
    rank: int = 0,
    world: int = 1,
    start: DataPosition | None = None,
    **options: int,
) -> PairStream:
    spec = DataSpec.model_validate({"train": {"shards": shards, "image_key": ["png", "jpg"]}, **options})
    return PairStream(
        spec, index, batch_size=batch_size, image_size=8, tokenize=lambda _: torch.ones(4), seed=1, rank=rank, world_size=world,
        start=start,
    )  # fmt: skip


def read_by(stream: PairStream, slots: range, batches: int) -> ReadStatistics:
    """Read as one loader process does, with what it has begun to read ahead."""
    stream.statistics = ReadStatistics()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockReader, "close", close_after_reading)
        for _ in islice(stream._parts(slots), batches):
            pass
    return stream.statistics


def close_after_reading(reader: BlockReader) -> None:
    """Close a reader as it does itself, but let it read what was requested, which otherwise depends on the time."""
    reader._threads.shutdown(wait=True)
    reader._sequential.close()
    reader._ranges.close()


def index_of(shards: str) -> DatasetIndex:
    return index_shards(DataSpec.model_validate({"train": {"shards": shards, "image_key": ["png", "jpg"]}}).train)


class TestBytes:
    @pytest.mark.parametrize(("workers", "processes"), [(1, 1), (1, 8), (2, 4), (3, 2), (4, 1)])
    def test_a_group_reads_each_byte_of_three_shards_once_an_epoch(self, tmp_path: Path, workers: int, processes: int) -> None:
        shards = write_shards(tmp_path, shards=3, pairs=96)
        index = index_of(shards)

        read = 0
        for rank in range(workers):
            stream = stream_of(index, shards, rank=rank, world=workers)
            for slots in stream.parts(processes):
                read += read_by(stream, slots, stream.batches).bytes

        total = int(index.blocks.length.sum())
        assert stream.batches == 12
        assert 0.95 * total <= read <= 1.05 * total

    def test_resuming_at_90_percent_reads_as_much_as_at_1_percent(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=3, pairs=320, size=8)
        index = index_of(shards)

        read = {}
        for percent in (1, 50, 90):
            start = DataPosition(0, 120 * percent // 100)
            stream = stream_of(index, shards, batch_size=8, shuffle=80, start=start)
            read[percent] = read_by(stream, stream.slots, 4).bytes

        assert read[1] < int(index.blocks.length.sum()) / 3
        assert read[50] == pytest.approx(read[1], rel=0.25)
        assert read[90] == pytest.approx(read[1], rel=0.25)

    def test_a_little_memory_costs_requests_and_changes_nothing(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=3, pairs=96)
        index = index_of(shards)
        order = stream_of(index, shards)._order.epoch(0)
        slots = range(24)
        found = []
        for memory in (1 << 30, 1 << 16):
            reader = BlockReader(order, slots, memory)
            samples = []
            for number in range(4):
                reader.prefetch(order.batch(number))
                samples += [each.sample for each in reader.read(order.batch(number))]
                assert 0 <= reader._held <= memory + REMOTE_BLOCK_BYTES
            found.append((samples, reader.statistics.bytes))
            assert reader._held == sum(map(reader._bytes_of, reader._pieces))
            reader.close()

        assert found[0][0] == found[1][0]
        assert found[0][1] < found[1][1]

    def test_many_readers_read_pieces_of_blocks_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shards = write_shards(tmp_path, shards=3, pairs=96)
        index = index_of(shards)
        order = stream_of(index, shards, shuffle=24)._order.epoch(0)
        places = [order.batch(number) for number in range(order.order.batches)]
        memory = 2 * int(index.blocks.length.mean())
        whole, pieces = BlockReader(order, range(24), 1 << 30), BlockReader(order, range(24), memory)
        monkeypatch.setattr(fetching, "MIN_PIECE_BYTES", 1024)
        pieces._split = fetching._pieces_of_a_block(order, 24, memory)

        expected = [whole.read(place) for place in places]
        found = [pieces.read(place) for place in places]

        assert found == expected
        assert pieces._split > 4
        assert not pieces._pieces
        assert pieces.statistics.requests > 2 * whole.statistics.requests
        assert pieces.statistics.bytes <= 1.1 * whole.statistics.bytes
        for reader in (whole, pieces):
            reader.close()

    def test_a_compressed_shard_is_read_once_from_its_beginning(self, tmp_path: Path) -> None:
        plain = write_shards(tmp_path / "plain", shards=2)
        for path in sorted((tmp_path / "plain").iterdir()):
            (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        packed = str(tmp_path / "*.tar.gz")
        index = index_of(packed)
        stream = stream_of(index, packed, batch_size=2)

        keys = [number for part in islice(stream._parts(stream.slots), stream.batches) for number in part.samples_B.tolist()]

        assert sorted(keys) == list(range(96))
        assert stream.statistics.requests == 2
        assert index_of(plain).pairs == 96


class TestRemote:
    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
        with s3_server() as environment:
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            yield bucket_files(environment)

    def test_requests_have_at_least_eight_megabytes(self, bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
        shards = large_shards(bucket, tmp_path)
        index = index_of(shards)
        total = int(index.blocks.length.sum())
        stream = stream_of(index, shards, batch_size=16)

        read = [read_by(stream, slots, stream.batches) for slots in stream.parts(2)]
        first = read_by(stream, stream.slots, 2)
        late = stream_of(index, shards, batch_size=16, start=DataPosition(0, stream.batches * 9 // 10))
        resumed = read_by(late, late.slots, 2)

        assert sum(each.bytes for each in read) <= 1.05 * total
        assert total / sum(each.requests for each in read) >= 6 << 20  # a stretch may begin and end in a block
        assert np.median(first.sizes) >= 8 << 20
        assert resumed.bytes <= first.bytes


def large_shards(bucket: s3fs.S3FileSystem, folder: Path) -> str:
    """Put three shards of about 40 MB into the bucket."""
    path = folder / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (460, 460, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    image = path.read_bytes()
    for shard in range(3):
        samples = [{"__key__": f"{shard}-{number}", "png": image, "txt": f"noise {number}"} for number in range(64)]
        bucket.put_file(write_shard(folder / f"{shard}.tar", samples), f"{BUCKET}/d/{shard}.tar")
    return f"s3://{BUCKET}/d/{{0..2}}.tar"


def test_more_blocks_are_read_ahead_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_shards(tmp_path, shards=3, pairs=96)
    index = index_of(shards)
    events: list[str] = []
    read, take = RangeReader.read, BlockReader.read
    monkeypatch.setattr(RangeReader, "read", lambda *a: (events.append("request"), read(*a))[1])
    monkeypatch.setattr(BlockReader, "read", lambda self, place: (events.append("batch"), take(self, place))[1])
    stream = stream_of(index, shards, batch_size=3, shuffle=1)

    list(islice(stream._parts(stream.slots), 1))

    assert events.index("batch") >= 1
