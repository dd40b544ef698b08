"""The loader yields full batches, as long as their texts, prepared ahead; broken samples and shards are skipped and counted."""

import tarfile
from pathlib import Path

import pytest
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.stream import loader
from tinyclip_workers.data.stream.loader import MAX_PREFETCH, BatchLoader, loader_processes, prefetch
from torch import Tensor

from tests.workers.data.stream.streams import stream, take, texts
from tests.workers.shapes_data import add_file, write_shards
from tests.workers.shards import png


class TestLengths:
    def test_a_batch_ends_with_its_longest_text(self, tmp_path: Path) -> None:
        for batch in take(stream(write_shards(tmp_path)), 4):
            assert batch.tokens_BT.shape == (8, max(map(len, texts(batch))) + 1)
            assert batch.tokens_BT.is_contiguous()

    def test_lengths_are_multiples_up_to_the_context_length(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        lengths = [[batch.tokens_BT.shape[1] for batch in take(stream(shards, text_multiple=n), 4)] for n in (7, 100)]

        assert set(lengths[0]) <= {14, 21}
        assert set(lengths[1]) == {24}


class TestPrefetch:
    @pytest.mark.parametrize(
        ("batch", "ahead"),
        [
            pytest.param(64 * 150_528, MAX_PREFETCH, id="small"),
            pytest.param(4096 * 150_528, 1, id="large"),
            pytest.param(2048 * 150_528, 3, id="in-between"),
            pytest.param(16384 * 150_528, 1, id="beyond-the-budget"),
        ],
    )
    def test_it_is_bounded_by_bytes(self, batch: int, ahead: int) -> None:
        assert prefetch(batch) == ahead

    def test_a_loader_prepares_that_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = stream(write_shards(tmp_path))
        monkeypatch.setattr(loader, "PREFETCH_BYTES", 3 * source.batch_bytes)

        assert source.batch_bytes == take(source, 1)[0].images_BCHW.nbytes
        assert [BatchLoader(source, processes).prefetch for processes in (2, 1, 0)] == [3, 3, None]

    def test_a_loader_that_pins_pins_every_tensor_of_a_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = stream(write_shards(tmp_path))
        pinned: list[Tensor] = []
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
        batch = take(source, 1)[0]

        copy = batch.pin_memory()

        assert [id(tensor) for tensor in pinned] == [id(batch.images_BCHW), id(batch.tokens_BT)]
        assert (copy.position, copy.skipped) == (batch.position, batch.skipped)

    @pytest.mark.gpu
    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_a_pinning_loader_yields_pinned_batches(self, tmp_path: Path, processes: int) -> None:
        batch = next(iter(BatchLoader(stream(write_shards(tmp_path)), processes, pin=True)))

        assert batch.images_BCHW.is_pinned()
        assert batch.tokens_BT.is_pinned()


class TestBrokenData:
    def test_a_broken_image_is_counted_and_the_batch_stays_full(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=15)
        with tarfile.open(tmp_path / "train-000000.tar", "a") as tar:
            add_file(tar, "bad.png", png_without_pixels())
            add_file(tar, "bad.json", b'{"captions": ["a broken thing"]}')

        batches = take(stream(shards), 2)

        assert [len(batch.images_BCHW) for batch in batches] == [8, 8]
        assert batches[-1].skipped.samples == 1
        assert "bad" in batches[-1].skipped.examples[0]

    def test_too_few_pairs_for_a_batch_raise_an_error_with_the_remedy(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=5)

        with pytest.raises(DataError, match="lower batch_size or add data"):
            stream(shards)

    @pytest.mark.parametrize("processes", [0, 2])
    def test_a_batch_without_a_good_pair_takes_those_of_another(self, tmp_path: Path, processes: int) -> None:
        write_shards(tmp_path, shards=1, pairs=4)
        with tarfile.open(tmp_path / "train-000000.tar", "a") as tar:
            for number in range(12):
                add_file(tar, f"bad{number}.png", png_without_pixels())
                add_file(tar, f"bad{number}.json", b'{"captions": ["a broken thing"]}')

        batches = take(stream(str(tmp_path / "*.tar"), batch_size=2), 16, processes)

        assert not any("broken" in text for batch in batches for text in texts(batch))
        assert [batch.position.batch for batch in batches] == [*range(1, 9)] * 2
        assert batches[-1].skipped.samples >= 12

    def test_an_epoch_without_a_good_pair_is_an_error(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for number in range(4):
                add_file(tar, f"bad{number}.png", png_without_pixels())
                add_file(tar, f"bad{number}.json", b'{"captions": ["a broken thing"]}')

        with pytest.raises(DataError, match=r"no pair of an epoch can be used \(sample bad"):
            take(stream(str(tmp_path / "a.tar"), batch_size=2), 1)

    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_a_shard_that_has_changed_is_an_error(self, tmp_path: Path, processes: int) -> None:
        source = stream(write_shards(tmp_path, shards=1))
        path = tmp_path / "train-000000.tar"
        path.write_bytes(path.read_bytes().replace(b"a red square", b"a bad square"))

        with pytest.raises(DataError, match=r"has changed .* the content of sample .*register the data set again"):
            take(source, 20, processes)

    @pytest.mark.parametrize("processes", [0, 2])
    def test_a_block_that_cannot_be_read_is_counted(self, tmp_path: Path, processes: int) -> None:
        source = stream(write_shards(tmp_path, shards=2), batch_size=2)
        (tmp_path / "train-000001.tar").unlink()

        batches = take(source, 48, processes)

        assert batches[-1].skipped.samples == 48
        assert all(len(batch.images_BCHW) == 2 and bool(batch.good_B.all()) for batch in batches)


def png_without_pixels() -> bytes:
    """Return a PNG whose header is valid: only decoding finds that it is broken."""
    return png((1, 2, 3))[:45]


@pytest.mark.parametrize(("cpus", "processes"), [(0.5, 1), (1, 1), (2, 1), (4, 3), (4.5, 3), (64, 16)])
def test_a_worker_has_a_loader_process_for_every_cpu_but_one(cpus: float, processes: int) -> None:
    assert loader_processes(cpus) == processes
