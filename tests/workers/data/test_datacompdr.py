"""The published layout of reinforced data sets: read as it was written, and hostile files cost one sample."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import TrainData
from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.datacompdr import OPERATIONS, published_views, synthetic_captions
from tinyclip_workers.data.index.dataset_index import write_shard_samples
from tinyclip_workers.data.index.rows import ShardSamples, Use, from_parquet
from tinyclip_workers.data.index.scanning import scan_shard
from tinyclip_workers.data.operations import apply_operations
from tinyclip_workers.data.published_embeddings import MAX_EMBEDDING_BYTES, published_embeddings
from tinyclip_workers.data.samples import Sample, UnusableSample, sample_errors
from tinyclip_workers.datasets.captions.joined_file import join_captions
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from tests.workers.students import random_image, write_shard


def sample(**files: Any) -> Sample:
    """Return a sample whose names have dots for underscores."""
    return {"__key__": "a", "__url__": "u", "__defects__": {}, **{name.replace("_", "."): data for name, data in files.items()}}


def npz(image: Any, text: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, image_emb=image, text_emb=text)
    return file.getvalue()


def pth(document: Any) -> bytes:
    file = io.BytesIO()
    torch.save(document, file)
    return gzip.compress(file.getvalue())


class TestViews:
    # The first sample that the card of apple/DataCompDR-12M shows: its parameters are a text.
    PUBLISHED = "[[[14, 347, 370, 427], [[0, 0.0], [6, 0.26999998092651367]]], [[56, 1, 910, 895], [[13, 0.0], [11, 178.5]]]]"

    @pytest.mark.parametrize("parameters", [PUBLISHED, json.loads(PUBLISHED)], ids=["a text", "a list"])
    def test_published_parameters_are_read(self, parameters: Any) -> None:
        first, second = published_views(sample(paug_json=json.dumps({"param_aug": parameters}).encode()))

        assert first.crop == Crop(left=347, top=14, width=427, height=370)
        assert [OPERATIONS[number] for number, _ in first.operations] == ["Identity", "Brightness"]
        assert [OPERATIONS[number] for number, _ in second.operations] == ["Equalize", "Solarize"]
        assert first.operations[1][1] == pytest.approx(0.27)

    @pytest.mark.parametrize(
        ("view", "message"),
        [
            ([[0, 0, 8, 8], [[14, 0.0]]], "operation 14 in param_aug is none of RandAugment's 14"),
            ([[0, 0, 8, 8], [[6, float("nan")]]], "the magnitude of Brightness in param_aug is not a finite number"),
            ([[0, 0, 8, 8], True, [[6, 0.1]]], "other transforms than these are not supported"),
            ([[0, 0, 8], None], "is not a crop and operations"),
        ],
    )
    def test_other_parameters_are_refused_by_name(self, view: Any, message: str) -> None:
        with pytest.raises(UnusableSample, match=message.replace("(", r"\(")):
            published_views(sample(paug_json=json.dumps({"param_aug": [view]}).encode()))


class TestOperations:
    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("sign", [1, -1])
    def test_pixels_are_those_of_torchvision(self, name: str, sign: int) -> None:
        magnitudes, signed = RandAugment()._augmentation_space(31, (32, 32))[name]
        magnitude = (sign if signed else 1) * (float(magnitudes[9]) if magnitudes.ndim else 0.0)
        image = random_image(3, (32, 32))

        found = apply_operations(np.asarray(image), [(OPERATIONS.index(name), magnitude)])

        expected = np.asarray(_apply_op(image, name, magnitude, InterpolationMode.NEAREST, None))
        assert np.array_equal(found, expected)

    def test_operations_are_applied_in_their_order(self) -> None:
        image = np.asarray(random_image(3, (32, 32)))

        one, other = (apply_operations(image, order) for order in ([(6, 0.5), (11, 100.0)], [(11, 100.0), (6, 0.5)]))

        assert not np.array_equal(one, other)


class TestEmbeddings:
    @pytest.mark.parametrize("kind", ["npz", "pth.gz"])
    def test_both_files_are_read(self, kind: str) -> None:
        image, text = torch.randn(3, 8), torch.randn(4, 8)
        if kind == "npz":
            found = published_embeddings(sample(npz=npz(image.numpy(), text.numpy())))
        else:
            found = published_embeddings(sample(pth_gz=pth({"image_emb": image.bfloat16(), "text_emb": text.bfloat16()})))
            image, text = image.bfloat16().float(), text.bfloat16().float()

        assert torch.equal(found[0], image)
        assert torch.equal(found[1], text)

    def hostile(self) -> dict[str, Sample]:
        huge = io.BytesIO()
        np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 8)})
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("image_emb.npy", huge.getvalue())
            file.writestr("text_emb.npy", huge.getvalue())
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("image_emb.npy", bytes(MAX_EMBEDDING_BYTES + 1))
        rows = np.zeros((2, 4), np.float32)
        expanded = {"image_emb": torch.zeros(1).expand(1 << 20, 1 << 20), "text_emb": torch.zeros(1, 1)}
        return {
            "objects": sample(npz=npz(np.array([{"a": 1}], dtype=object), rows)),
            "a header of a terabyte": sample(npz=archive.getvalue()),
            "a zip bomb": sample(npz=bomb.getvalue()),
            "a gzip bomb": sample(pth_gz=gzip.compress(bytes(MAX_EMBEDDING_BYTES + 1))),
            "an expanded tensor": sample(pth_gz=pth(expanded)),
            "a pickle": sample(pth_gz=gzip.compress(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")),
            "one axis": sample(npz=npz(rows[0], rows)),
            "not finite": sample(npz=npz(rows * np.float32("nan"), rows)),
            "other sizes": sample(npz=npz(rows, rows[:, :2])),
            "integers": sample(npz=npz(rows.astype(int), rows)),
            "nothing": sample(txt=b"a"),
        }  # fmt: skip

    def test_hostile_files_are_unusable_samples(self, subtests: pytest.Subtests) -> None:
        for name, each in self.hostile().items():
            with subtests.test(name), pytest.raises(UnusableSample), sample_errors():
                published_embeddings(each)
        assert not Path("/tmp/owned").exists()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(["npz", "pth.gz", "paug.json", "syn.json"]), st.binary(max_size=300))
    def test_any_bytes_are_at_most_an_unusable_sample(self, name: str, data: bytes) -> None:
        read: dict[str, Callable[[Sample], object]] = {
            "npz": published_embeddings, "pth.gz": published_embeddings, "paug.json": published_views,
            "syn.json": synthetic_captions,
        }  # fmt: skip
        for content in (data, gzip.compress(data)):
            found: object = []
            with suppress(UnusableSample), sample_errors():
                found = read[name]({"__key__": "a", "__url__": "u", "__defects__": {}, name: content})
            assert isinstance(found, list | tuple)


class TestIndex:
    def test_synthetic_captions_are_more_captions(self, tmp_path: Path) -> None:
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "PNG")
        files = {"png": png.getvalue(), "txt": b"a caption"}
        shard = write_shard(tmp_path / "a.tar", {
            "one": files | {"syn.json": json.dumps({"syn_text": [" a synthetic one ", "two"]}).encode()},
            "two": files,
            "three": files | {"syn.json": b'{"syn_text": 3}'},
        })  # fmt: skip

        scanned = scan_shard(str(shard), TrainData(shards=str(shard), image_key=["png"]))

        samples = ShardSamples(scanned.samples)
        assert [samples.more_captions(row) for row in range(2)] == [["a synthetic one", "two"], []]
        assert scanned.samples.column("use").to_pylist() == [Use.TRAINING, Use.TRAINING, Use.UNUSABLE]
        assert "syn_text" in scanned.samples.column("problem")[2].as_py()

    def test_captions_of_a_file_follow_the_synthetic_ones_however_often_they_are_joined(self, tmp_path: Path) -> None:
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "PNG")
        files = {"png": png.getvalue(), "txt": b"a caption", "syn.json": json.dumps({"syn_text": ["synthetic"]}).encode()}
        shard = str(write_shard(tmp_path / "a.tar", {"one": files, "two": files}))
        store, folder = ArtifactsStore(str(tmp_path / "store")), "datasets/a/1"
        write_shard_samples(store, folder, 0, scan_shard(shard, TrainData(shards=shard, image_key=["png"])).samples)
        captions = tmp_path / "captions.jsonl"

        for text in ("an older text", "from the file"):  # the first one as by a join that was interrupted
            captions.write_text(json.dumps({"key": "one", "captions": [text]}))
            join_captions(store, folder, str(captions), [shard], 77, lambda _: None)

        samples = ShardSamples(from_parquet(store.read_bytes(dataset_samples(folder, 0))))
        assert [samples.more_captions(row) for row in range(2)] == [["synthetic", "from the file"], ["synthetic"]]
