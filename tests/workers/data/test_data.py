"""The training input: repeatable, resumable, split without overlap, patient with broken files."""

import itertools
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from open_clip import SimpleTokenizer
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.shards import DataError, Skipped, expand_shards, is_held_out, read_shards
from tinyclip_workers.data.stream import Batch, DataPosition, PairStream, SingleTextTokenizer, count_pairs, make_loader
from torch import Tensor

from tests.workers.shapes_data import add_file, write_shards


def letters(text: str) -> Tensor:
    return torch.tensor([ord(c) for c in f"{text:<24}"[:24]])


def words(batch: Batch) -> list[str]:
    return ["".join(chr(c) for c in row).strip() for row in batch.tokens_BT.tolist()]


def stream(shards: str, **options: object) -> PairStream:
    train = {"shards": shards, "caption_key": "json.captions", **options.pop("train", {})}  # type: ignore[dict-item]
    defaults = {"batch_size": 8, "image_size": 32, "tokenize": letters, "seed": 3}
    return PairStream(DataSpec.model_validate({"train": train}), **{**defaults, **options})  # type: ignore[arg-type]


def take(source: PairStream, count: int, processes: int = 0) -> list[Batch]:
    return list(itertools.islice(make_loader(source, processes), count))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images_BCHW, other.images_BCHW) and torch.equal(one.tokens_BT, other.tokens_BT)


class TestPickling:
    """Loader processes that are not forked get the stream as a pickle."""

    def test_the_stream_that_workers_make_gives_the_same_batches(self, tmp_path: Path) -> None:
        tokens = SingleTextTokenizer(SimpleTokenizer(context_length=16))
        made = stream(write_shards(tmp_path), tokenize=tokens)
        take(made, 1)  # a stream that has been read is no other one

        sent = pickle.loads(pickle.dumps(made))

        assert all(same(a, b) for a, b in zip(take(made, 5), take(sent, 5), strict=True))
        assert torch.equal(tokens("a cat"), SimpleTokenizer(context_length=16)(["a cat"])[0])


class TestRepeating:
    def test_two_streams_of_one_seed_are_equal_over_epochs(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        first, second = take(stream(shards), 30), take(stream(shards), 30)

        assert first[-1].position[0] >= 2
        assert all(same(a, b) for a, b in zip(first, second, strict=True))

    def test_another_seed_gives_other_batches(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        assert not same(take(stream(shards), 1)[0], take(stream(shards, seed=4), 1)[0])

    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_a_resumed_stream_goes_on_where_it_stood(self, tmp_path: Path, processes: int) -> None:
        shards = write_shards(tmp_path)
        whole = take(stream(shards), 20, processes)
        position = DataPosition()
        for batch in whole[:13]:
            position.advance(batch)

        resumed = take(stream(shards, start=position), 7, processes)

        assert all(same(a, b) for a, b in zip(whole[13:], resumed, strict=True))


class TestSplitting:
    @pytest.mark.parametrize("shards", [2, 8])
    def test_ranks_see_different_pairs_and_together_all_of_them(self, tmp_path: Path, shards: int) -> None:
        pattern = write_shards(tmp_path, shards=shards, pairs=8)
        keys = [
            [sample["__key__"] for sample, _ in stream(pattern, rank=rank, world_size=2)._share_of(0, rank, 2)] for rank in (0, 1)
        ]

        assert not set(keys[0]) & set(keys[1])
        assert len(keys[0]) + len(keys[1]) == shards * 8

    def test_no_batch_has_two_pairs_of_one_concept(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)

        for batch in take(stream(shards, train={"distinct_key": "json.concept"}), 12):
            concepts = {" ".join(sorted(set(text.split()) - {"a", "in"})) for text in words(batch)}
            assert len(concepts) == 8

    def test_what_is_held_out_is_never_trained_on(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        source = stream(shards, train={"holdout": 0.25})

        keys = [sample["__key__"] for sample, _ in source._share_of(0, 0, 1)]

        assert 0 < len(keys) < 96
        assert not any(is_held_out(key, 0.25) for key in keys)
        assert count_pairs(DataSpec.model_validate({"train": {"shards": shards, "holdout": 0.25}})) == len(keys)


class TestBrokenInput:
    def test_a_broken_picture_is_counted_and_the_batch_stays_full(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=15)
        with tarfile.open(tmp_path / "train-000000.tar", "a") as tar:
            add_file(tar, "bad.png", b"not a picture")
            add_file(tar, "bad.json", b'{"captions": ["a broken thing"]}')

        batches = take(stream(shards), 2)

        assert [len(batch.images_BCHW) for batch in batches] == [8, 8]
        assert batches[-1].skipped.samples == 1
        assert "bad" in batches[-1].skipped.examples[0]

    def test_a_shard_cut_in_half_gives_what_it_has_and_is_reported(self, tmp_path: Path) -> None:
        write_shards(tmp_path)
        torn = tmp_path / "train-000001.tar"
        torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2 + 700])
        skipped = Skipped()

        samples = list(read_shards(expand_shards(str(tmp_path / "train-*.tar")), skipped))

        assert 48 < len(samples) < 96
        assert skipped.shards == 1

    def test_nothing_readable_is_an_error_that_names_the_path(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none of the 2 shards can be read.*gone-0\.tar"):
            list(read_shards([str(tmp_path / "gone-0.tar"), str(tmp_path / "gone-1.tar")], Skipped()))

    def test_too_few_pairs_for_a_batch_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path, shards=1, pairs=5)

        with pytest.raises(DataError, match="lower batch_size or add data"):
            take(stream(shards), 1)
