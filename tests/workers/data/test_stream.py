"""The training stream is repeatable, resumable and split without overlap, and skips broken samples."""

import copy
import itertools
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data import stream as stream_module
from tinyclip_workers.data.augment import crop_of
from tinyclip_workers.data.decoding import decode_crop
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.positions import DataPosition
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.stream import (
    MAX_PREFETCH,
    Batch,
    BatchLoader,
    PairStream,
    SingleTextTokenizer,
    loader_processes,
    prefetch,
)
from torch import Tensor

from tests.workers.shapes_data import add_file, write_shards
from tests.workers.shards import png
from tests.workers.students import encoded, random_image

END = "~"
"""The largest of the letters, as CLIP's end-of-text is of its tokens."""


def letters(text: str) -> Tensor:
    return torch.tensor([ord(c) for c in f"{text + END:<24}"[:24]])


def texts(batch: Batch) -> list[str]:
    return ["".join(chr(c) for c in row).strip().removesuffix(END) for row in batch.tokens_BT.tolist()]


def stream(shards: str, **options: object) -> PairStream:
    train = {"shards": shards, "caption_key": "json.captions", **options.pop("train", {})}  # type: ignore[dict-item]
    defaults = {"batch_size": 8, "image_size": 32, "tokenize": letters, "seed": 3}
    spec = DataSpec.model_validate({"train": train})
    return PairStream(spec, index_shards(spec.train), **{**defaults, **options})  # type: ignore[arg-type]


def take(source: PairStream, count: int, processes: int = 0) -> list[Batch]:
    return list(itertools.islice(BatchLoader(source, processes), count))


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images_BCHW, other.images_BCHW) and texts(one) == texts(other)


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
        monkeypatch.setattr(stream_module, "PREFETCH_BYTES", 3 * source.batch_bytes)

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


class TestPickling:
    """Loader processes that are not forked receive the stream as a pickle."""

    def test_an_unpickled_stream_yields_the_same_batches(self, tmp_path: Path) -> None:
        tokens = SingleTextTokenizer(SimpleTokenizer(context_length=16))
        original = stream(write_shards(tmp_path), tokenize=tokens)
        take(original, 1)  # reading the stream does not change it

        copy = pickle.loads(pickle.dumps(original))

        assert all(equal(a, b) for a, b in zip(take(original, 5), take(copy, 5), strict=True))
        assert torch.equal(tokens("a cat"), SimpleTokenizer(context_length=16)(["a cat"])[0])


class TestRepeatability:
    def test_two_streams_of_one_seed_are_equal_over_epochs(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        first, second = take(stream(shards), 30), take(stream(shards), 30)

        assert first[-1].position.epoch >= 2
        assert all(equal(a, b) for a, b in zip(first, second, strict=True))

    def test_another_seed_yields_other_batches(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        assert not equal(take(stream(shards), 1)[0], take(stream(shards, seed=4), 1)[0])

    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_a_resumed_stream_continues_at_its_position(self, tmp_path: Path, processes: int) -> None:
        shards = write_shards(tmp_path)
        whole = take(stream(shards), 20, processes)

        resumed = take(stream(shards, start=whole[12].position), 7, processes)

        assert all(equal(a, b) for a, b in zip(whole[13:], resumed, strict=True))
        assert [batch.position for batch in whole[11:13]] == [DataPosition(0, 12), DataPosition(1, 1)]  # 12 batches an epoch

    def test_it_continues_with_another_number_of_loader_processes(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        whole = take(stream(shards), 8, processes=2)

        resumed = take(stream(shards, start=whole[2].position), 5, processes=1)

        assert all(equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))


class TestSplitting:
    @pytest.mark.parametrize(("workers", "processes"), [(1, 2), (2, 0), (2, 2), (4, 1), (3, 2)])
    def test_workers_together_see_the_batches_of_one(self, tmp_path: Path, workers: int, processes: int) -> None:
        shards = write_shards(tmp_path)
        options = {"batch_size": 12, "train": {"augment": {"crop_scale": [0.4, 1.0], "degrees": 20, "color_jitter": 0.3}}}
        whole = take(stream(shards, **copy.deepcopy(options)), 10)  # 8 batches an epoch

        ranks = [
            take(stream(shards, rank=rank, world_size=workers, **copy.deepcopy(options)), 10, processes)
            for rank in range(workers)
        ]

        for batch, *parts in zip(whole, *ranks, strict=True):
            assert [text for part in parts for text in texts(part)] == texts(batch)
            for name in ("images_BCHW", "samples_B", "views_BP"):
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))

    def test_no_batch_has_two_pairs_with_the_same_distinct_key(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        for batch in take(stream(shards, train={"distinct_key": "json.concept"}), 12):
            concepts = {" ".join(sorted(set(text.split()) - {"a", "in"})) for text in texts(batch)}
            assert len(concepts) == 8

    def test_held_out_samples_are_never_trained_on(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        index = index_shards(DataSpec.model_validate({"train": {"shards": shards, "holdout": 0.25}}).train)
        seen = {
            number for batch in take(stream(shards, train={"holdout": 0.25}), 24) for number in batch.samples_B.tolist()
        }

        keys = [index.load_samples(number // 48).key(number % 48) for number in seen]

        assert not any(is_held_out(key, 0.25) for key in keys)
        assert 0 < len(keys) <= index.pairs < 96


class TestViews:
    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_the_crop_of_a_view_replays_the_pixels(self, tmp_path: Path, format: str) -> None:
        files = [encoded(random_image(number, (90, 70 + number)), format) for number in range(8)]
        shard = tmp_path / "train-000000.tar"
        with tarfile.open(shard, "w") as tar:
            for number, data in enumerate(files):
                add_file(tar, f"{number}.{'jpg' if format == 'JPEG' else 'png'}", data)
                add_file(tar, f"{number}.txt", b"noise")

        [batch] = take(stream(str(shard), train={"caption_key": "txt"}), 1)

        crops = [crop_of(view) for view in batch.views_BP.numpy()]
        assert len(set(crops)) == 8
        for image, number, crop in zip(batch.images_BCHW, batch.samples_B.tolist(), crops, strict=True):
            replayed = decode_crop(files[number], 32, lambda width, height, crop=crop: crop)
            np.testing.assert_array_equal(image.permute(1, 2, 0), replayed)


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


@pytest.mark.parametrize(("cpus", "processes"), [(0.5, 1), (1, 1), (2, 1), (4, 3), (4.5, 3), (64, 8)])
def test_a_worker_has_a_loader_process_for_every_cpu_but_one(cpus: float, processes: int) -> None:
    assert loader_processes(cpus) == processes
