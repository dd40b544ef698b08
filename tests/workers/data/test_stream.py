"""The training stream is repeatable, resumable and split without overlap, and skips broken samples."""

import itertools
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from open_clip import SimpleTokenizer
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data import stream as stream_module
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.stream import (
    MAX_PREFETCH,
    Batch,
    DataPosition,
    PairStream,
    SingleTextTokenizer,
    count_pairs,
    loader_processes,
    make_loader,
    prefetch,
)
from torch import Tensor

from tests.workers.shapes_data import add_file, write_shards

END = "~"
"""The largest of the letters, as CLIP's end-of-text is of its tokens."""


def letters(text: str) -> Tensor:
    return torch.tensor([ord(c) for c in f"{text + END:<24}"[:24]])


def texts(batch: Batch) -> list[str]:
    return ["".join(chr(c) for c in row).strip().removesuffix(END) for row in batch.tokens_BT.tolist()]


def stream(shards: str, **options: object) -> PairStream:
    train = {"shards": shards, "caption_key": "json.captions", **options.pop("train", {})}  # type: ignore[dict-item]
    defaults = {"batch_size": 8, "image_size": 32, "tokenize": letters, "seed": 3}
    return PairStream(DataSpec.model_validate({"train": train}), **{**defaults, **options})  # type: ignore[arg-type]


def take(source: PairStream, count: int, processes: int = 0) -> list[Batch]:
    return list(itertools.islice(make_loader(source, processes), count))


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images_BCHW, other.images_BCHW) and torch.equal(one.tokens_BT, other.tokens_BT)


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
        ("processes", "batch", "ahead"),
        [
            pytest.param(1, 64 * 150_528, MAX_PREFETCH, id="small"),
            pytest.param(7, 1024 * 150_528, 1, id="a-full-gpu"),
            pytest.param(7, 256 * 150_528, 3, id="in-between"),
            pytest.param(8, 8192 * 150_528, 1, id="beyond-the-budget"),
        ],
    )
    def test_it_is_bounded_by_bytes(self, processes: int, batch: int, ahead: int) -> None:
        assert prefetch(processes, batch) == ahead

    def test_a_loader_prepares_that_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = stream(write_shards(tmp_path))
        monkeypatch.setattr(stream_module, "PREFETCH_BYTES", 3 * source.batch_bytes)

        assert source.batch_bytes == take(source, 1)[0].images_BCHW.nbytes
        assert [make_loader(source, processes).prefetch_factor for processes in (2, 1, 0)] == [1, 3, None]

    def test_a_loader_that_pins_pins_every_tensor_of_a_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = stream(write_shards(tmp_path))
        pinned: list[Tensor] = []
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
        batch = take(source, 1)[0]

        copy = batch.pin_memory()

        assert [id(tensor) for tensor in pinned] == [id(batch.images_BCHW), id(batch.tokens_BT)]
        assert (copy.position, copy.share, copy.skipped) == (batch.position, batch.share, batch.skipped)
        assert [make_loader(source, 0, pin=pin).pin_memory for pin in (False, True)] == [False, True]

    @pytest.mark.gpu
    @pytest.mark.parametrize("processes", [0, 1])
    def test_a_pinning_loader_yields_pinned_batches(self, tmp_path: Path, processes: int) -> None:
        batch = next(iter(make_loader(stream(write_shards(tmp_path)), processes, pin=True)))

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

        assert first[-1].position[0] >= 2
        assert all(equal(a, b) for a, b in zip(first, second, strict=True))

    def test_another_seed_yields_other_batches(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        assert not equal(take(stream(shards), 1)[0], take(stream(shards, seed=4), 1)[0])

    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_a_resumed_stream_continues_at_its_position(self, tmp_path: Path, processes: int) -> None:
        shards = write_shards(tmp_path)
        whole = take(stream(shards), 20, processes)
        position = DataPosition()
        for batch in whole[:13]:
            position.advance(batch)

        resumed = take(stream(shards, start=position), 7, processes)

        assert all(equal(a, b) for a, b in zip(whole[13:], resumed, strict=True))

    def test_with_another_number_of_loader_processes_it_continues_with_the_next_epoch(self, tmp_path: Path) -> None:
        shards, position = write_shards(tmp_path), DataPosition()
        for batch in take(stream(shards), 13):  # 12 batches an epoch
            position.advance(batch)

        resumed = take(stream(shards, start=DataPosition.from_json(position.to_json())), 4, processes=2)

        assert position.shares == {0: (1, 1)}
        assert {batch.position for batch in resumed} == {(2, 1), (2, 2)}


class TestSplitting:
    @pytest.mark.parametrize("shards", [2, 8])
    def test_ranks_see_different_pairs_and_together_all_of_them(self, tmp_path: Path, shards: int) -> None:
        pattern = write_shards(tmp_path, shards=shards, pairs=8)
        keys = []
        for rank in (0, 1):
            source = stream(pattern, rank=rank, world_size=2)
            keys.append([sample["__key__"] for sample, _ in source._share_samples(0, rank, 2)])

        assert not set(keys[0]) & set(keys[1])
        assert len(keys[0]) + len(keys[1]) == shards * 8

    def test_no_batch_has_two_pairs_with_the_same_distinct_key(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        for batch in take(stream(shards, train={"distinct_key": "json.concept"}), 12):
            concepts = {" ".join(sorted(set(text.split()) - {"a", "in"})) for text in texts(batch)}
            assert len(concepts) == 8

    def test_held_out_samples_are_never_trained_on(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        source = stream(shards, train={"holdout": 0.25})

        keys = [sample["__key__"] for sample, _ in source._share_samples(0, 0, 1)]

        assert 0 < len(keys) < 96
        assert not any(is_held_out(key, 0.25) for key in keys)
        assert count_pairs(DataSpec.model_validate({"train": {"shards": shards, "holdout": 0.25}})) == len(keys)

    def test_a_count_shows_that_it_makes_progress(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(stream_module, "COUNT_LOG_SECONDS", 0.0)
        caplog.set_level("INFO", "tinyclip_workers")

        pairs = count_pairs(DataSpec.model_validate({"train": {"shards": write_shards(tmp_path)}}))

        lines = [record.message for record in caplog.records if "counted" in record.message]
        assert (len(lines), lines[-1]) == (pairs, f"counted {pairs} pairs so far")


class TestBrokenData:
    def test_a_broken_image_is_counted_and_the_batch_stays_full(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=15)
        with tarfile.open(tmp_path / "train-000000.tar", "a") as tar:
            add_file(tar, "bad.png", b"not an image")
            add_file(tar, "bad.json", b'{"captions": ["a broken thing"]}')

        batches = take(stream(shards), 2)

        assert [len(batch.images_BCHW) for batch in batches] == [8, 8]
        assert batches[-1].skipped.samples == 1
        assert "bad" in batches[-1].skipped.examples[0]

    def test_too_few_pairs_for_a_batch_raise_an_error_with_the_remedy(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=5)

        with pytest.raises(DataError, match="lower batch_size or add data"):
            take(stream(shards), 1)


@pytest.mark.parametrize(("cpus", "processes"), [(0.5, 1), (1, 1), (2, 1), (4, 3), (4.5, 3), (64, 8)])
def test_a_worker_has_a_loader_process_for_every_cpu_but_one(cpus: float, processes: int) -> None:
    assert loader_processes(cpus) == processes
