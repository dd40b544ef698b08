"""Reinforcements from and to the layout of DataCompDR."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.datasets import DATACOMPDR_AUGMENT, ReinforcementPost
from tinyclip_workers.data.datacompdr import published_views
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import DatasetIndex, open_index
from tinyclip_workers.data.published_embeddings import published_embeddings
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.reinforcing.exporting import export
from tinyclip_workers.training.teachers.frozen import freeze_teachers
from tinyclip_workers.training.teachers.stored import verify_stored

from tests.workers.datacompdr import write_published
from tests.workers.registered import DATASET, ID, register, reinforce_here, request_reinforcement
from tests.workers.students import write_shard, write_student

COUNT, VIEWS = 10, 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teachers."""
    folder = tmp_path_factory.mktemp("teachers")
    return [write_student(folder / name, seed=seed) for seed, name in enumerate(("one", "two"))]


@pytest.fixture(scope="module")
def teachers(folders: list[Path]) -> list[LoadedModel]:
    return [load_folder(str(folder)) for folder in folders]


def imported(root: Path, shard: str, folders: list[Path], **post: Any) -> StoredReinforcement:
    store = ArtifactsStore(str(root))
    register(store, shard, image_key=["jpg"])
    several = [{"model": f"local-dir:{folder}"} for folder in folders]
    folder = request_reinforcement(store, teachers=several, embeddings="datacompdr", **{"augmentations": VIEWS, **post})
    reinforce_here(store, folder)
    return StoredReinforcement.open(store, folder)


def index_in(root: Path) -> DatasetIndex:
    return open_index(ArtifactsStore(str(root)), f"datasets/{DATASET}/1", "0" * 64)


def texts_of(sample: Sample) -> list[str]:
    texts: list[str] = [sample["txt"].decode(), *json.loads(sample["syn.json"])["syn_text"]]
    return texts


class TestImport:
    @pytest.mark.parametrize("layout", [{}, {"tensors": True}, {"as_text": True}], ids=["npz", "pth.gz", "parameters as a text"])
    def test_embeddings_are_those_of_the_shard(
        self, tmp_path: Path, folders: list[Path], teachers: list[LoadedModel], layout: dict[str, bool]
    ) -> None:
        shard = write_published(tmp_path / "a.tar", teachers, COUNT, VIEWS, **layout)

        stored = imported(tmp_path / "store", shard, folders)

        assert (stored.document.samples, stored.document.skipped, stored.document.precision) == (COUNT, 0, "import")
        assert stored.document.augment == DATACOMPDR_AUGMENT
        for row, sample in enumerate(read_shard(shard)):
            image_KE, text_ME = published_embeddings(sample)
            for number, text in enumerate(texts_of(sample)):
                view = stored.view(0, row, number)
                assert view is not None
                assert view.operations == tuple(
                    (operation, pytest.approx(magnitude)) for operation, magnitude in published_views(sample)[number].operations
                )
                targets = stored.targets(0, row, number, text)
                image_E, text_E = (torch.cat([pair[kind].float() for pair in targets]) for kind in range(2))
                torch.testing.assert_close(image_E, image_KE[number], atol=4e-3, rtol=0)
                torch.testing.assert_close(text_E, text_ME[number], atol=4e-3, rtol=0)

    def test_training_replays_what_was_embedded(
        self, tmp_path: Path, folders: list[Path], teachers: list[LoadedModel]
    ) -> None:
        shard = write_published(tmp_path / "a.tar", teachers, COUNT, VIEWS)
        stored = imported(tmp_path / "store", shard, folders, dtype="fp32")
        document = {
            "name": "shapes", "teachers": [{"model": f"local-dir:{folder}"} for folder in folders],
            "data": {"train": {"shards": shard, "image_key": ["jpg"], "augment": DATACOMPDR_AUGMENT.model_dump()}},
            "stages": [{"name": "only", "inherit": "none", "student": {"preset": "ViT-B-32"}, "train": {"steps": 1}}],
        }  # fmt: skip
        frozen = freeze_teachers(teachers, [0.5, 0.5], None, teachers[0])

        found = verify_stored(
            stored, JobSpec.model_validate(document), index_in(tmp_path / "store"), teachers[0], frozen, torch.device("cpu")
        )

        assert found > 0.999

    def test_teachers_in_another_order_are_refused(
        self, tmp_path: Path, folders: list[Path], teachers: list[LoadedModel]
    ) -> None:
        shard = write_published(tmp_path / "a.tar", teachers, COUNT, VIEWS)

        with pytest.raises(DataError, match=r"are not those of two: the cosine is .* name the teachers"):
            imported(tmp_path / "store", shard, folders[::-1])

    def test_samples_that_cannot_be_replayed_are_skipped_for_a_reason(
        self, tmp_path: Path, folders: list[Path], teachers: list[LoadedModel]
    ) -> None:
        samples = list(read_shard(write_published(tmp_path / "a.tar", teachers, COUNT, VIEWS)))
        views = json.loads(samples[1]["paug.json"])["param_aug"]
        views[1][0] = [0, 0, 500, 500]
        samples[1]["paug.json"] = json.dumps({"param_aug": views}).encode()
        samples[2]["paug.json"] = json.dumps({"param_aug": [[[0, 0, 8, 8], True, None]] * VIEWS}).encode()
        samples[3]["paug.json"] = json.dumps({"param_aug": views[:1]}).encode()
        samples[4]["syn.json"] = json.dumps({"syn_text": ["one more", "than", "there are"]}).encode()
        del samples[5]["npz"]
        files = {each["__key__"]: {name: data for name, data in each.items() if name[0] != "_"} for each in samples}
        shard = str(write_shard(tmp_path / "b.tar", files))

        stored = imported(tmp_path / "store", shard, folders)

        assert (stored.document.samples, stored.document.skipped) == (COUNT - 5, 5)
        assert [row for row in range(COUNT) if stored.view(0, row, 0) is None] == [1, 2, 3, 4, 5]

    def test_another_augmentation_is_refused(self) -> None:
        post = {"teacher": {"model": "local-dir:x"}, "embeddings": "datacompdr"}
        assert ReinforcementPost.model_validate(post).augment == DATACOMPDR_AUGMENT

        with pytest.raises(ValueError, match="omit augment"):
            ReinforcementPost.model_validate({**post, "augment": {"degrees": 3}})


class TestExport:
    def test_what_is_exported_can_be_imported(
        self, tmp_path: Path, folders: list[Path], teachers: list[LoadedModel]
    ) -> None:
        shard = write_published(tmp_path / "a.tar", teachers, COUNT, VIEWS)
        first = imported(tmp_path / "store", shard, folders)
        out = ArtifactsStore(str(tmp_path / "out"))

        assert export(ArtifactsStore(str(tmp_path / "store")), DATASET, 1, ID, out) == COUNT
        second = imported(tmp_path / "again", f"{tmp_path}/out/00000000.tar", folders)

        assert second.document.samples == COUNT
        for row, sample in enumerate(read_shard(shard)):
            for number, text in enumerate(texts_of(sample)):
                one, other = first.view(0, row, number), second.view(0, row, number)
                assert one is not None
                assert other is not None
                assert (one.view == other.view).all()
                assert one.operations == other.operations
                pairs = zip(first.targets(0, row, number, text), second.targets(0, row, number, text), strict=True)
                for (image, words), (other_image, other_words) in pairs:
                    torch.testing.assert_close(image, other_image, atol=2e-3, rtol=0)
                    torch.testing.assert_close(words, other_words, atol=2e-3, rtol=0)
        config = json.loads(out.read_bytes("config.json"))
        assert config["model_name"] == "one,two"

    def test_computed_embeddings_are_exported_as_fp32(self, tmp_path: Path, folders: list[Path], shards: str) -> None:
        store, out = ArtifactsStore(str(tmp_path / "store")), ArtifactsStore(str(tmp_path / "out"))
        register(store, shards, caption_key="json.captions", image_key=["png"])
        post = {"teacher": {"model": f"local-dir:{folders[0]}"}, "augmentations": 2, "dtype": "fp32"}
        folder = request_reinforcement(store, **post)
        reinforce_here(store, folder)

        assert export(store, DATASET, 1, ID, out) == 240

        stored = StoredReinforcement.open(store, folder)
        with tarfile.open(fileobj=io.BytesIO(out.read_bytes("00000003.tar"))) as tar:
            assert {name.partition(".")[2] for name in tar.getnames()} == {"png", "txt", "json", "syn.json", "paug.json", "npz"}
        for row, sample in enumerate(read_shard(f"{tmp_path}/out/00000003.tar")):
            captions = json.loads(sample["json"])["captions"]
            image_KE, text_ME = published_embeddings(sample)
            for epoch, caption in enumerate(captions):
                [(image_E, text_E)] = stored.targets(3, row, epoch, caption)
                assert torch.equal(image_E, image_KE[epoch])
                assert torch.equal(text_E, text_ME[epoch])
        assert export(store, DATASET, 1, ID, out) == 0

    def test_other_augmentations_are_refused_by_name(self, tmp_path: Path, folders: list[Path], shards: str) -> None:
        store = ArtifactsStore(str(tmp_path / "store"))
        register(store, shards, image_key=["png"])
        post = {"teacher": {"model": f"local-dir:{folders[0]}"}, "augmentations": 1, "augment": {"degrees": 5, "gray": 0.1}}
        reinforce_here(store, request_reinforcement(store, **post))

        with pytest.raises(DataError, match="this reinforcement also degrees, gray; make one with crop_scale alone"):
            export(store, DATASET, 1, ID, ArtifactsStore(str(tmp_path / "out")))
