"""The training stream is repeatable, resumable and split without overlap."""

import copy
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.augment import crop_of
from tinyclip_workers.data.decoding import decode_crop
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.positions import DataPosition

from tests.workers.data.stream.streams import equal, stream, take, texts
from tests.workers.shapes_data import add_file, write_shards
from tests.workers.students import encoded, random_image


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
