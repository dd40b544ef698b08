"""CLIP_benchmark's layout, and our scores against its formulas implemented in numpy."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tinyclip.schemas.spec import LinearProbeTask, RetrievalTask, ZeroShotTask
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.evaluation.clip_benchmark import find_split, resolve_task
from tinyclip_workers.model.files.folders import LoadedModel, load_folder

from tests.workers.evaluations import evaluate
from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shards import COLORS, write_shard

Matrix = npt.NDArray[Any]

TEMPLATES = ["a photo of a {c}.", "itap of my {c}.", "{c}"]
CLASSES = [*COLORS, "red"]
"""As in CLIP_benchmark's ImageNet, a name may stand for two classes."""


def webp(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(buffer, "webp", lossless=True)
    return buffer.getvalue()


def write_split(folder: Path, count: int, *, start: int = 0, captions: bool = False) -> list[dict[str, Any]]:
    """Write `nshards.txt` and two shards; return their samples."""
    folder.mkdir(parents=True)
    samples: list[dict[str, Any]] = []
    for number in range(start, start + count):
        sample = {"__key__": f"s{number:07d}", "webp": webp(number)}
        text = "\n".join(f"caption {word} of {number}" for word in ("one", "two", "three")[: 1 + number % 3])
        samples.append({**sample, "txt": text} if captions else {**sample, "cls": str(number % len(CLASSES))})
    write_shard(folder / "0.tar", samples[: count // 2])
    write_shard(folder / "1.tar", samples[count // 2 :])
    (folder / "nshards.txt").write_text("2\n")
    return samples


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wds") / "wds_colors"
    write_split(root / "train", 40, start=100)
    write_split(root / "test", 24)
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return root


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wds") / "wds_captions"
    write_split(root / "test", 15, captions=True)
    (root / "dataset_type.txt").write_text("retrieval\n")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_folder(str(write_folder(tmp_path_factory.mktemp("m") / "tiny", tiny_model(3), tiny_layout())))


def images_of(model: LoadedModel, numbers: range) -> Matrix:
    pixels = torch.stack([eval_transform(32)(decode_image(webp(number))) for number in numbers])
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (model.image_mean, model.image_std))
    with torch.no_grad():
        return unit(model.model.encode_image((pixels / 255 - mean) / std).numpy())


def texts_of(model: LoadedModel, texts: list[str]) -> Matrix:
    with torch.no_grad():
        return unit(model.model.encode_text(model.tokenizer(texts)).numpy())


def unit(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def zero_shot(shards: Path | str, **changes: Any) -> ZeroShotTask:
    return ZeroShotTask.model_validate({"name": "colors", "kind": "zero_shot", "shards": str(shards), **changes})


class TestScores:
    def test_zero_shot_is_the_prompt_ensemble_of_the_folder(self, classification: Path, model: LoadedModel) -> None:
        scores = evaluate({"student": model}, zero_shot(classification / "test"))["student"]

        classifier = unit(np.stack([
            texts_of(model, [template.format(c=name) for template in TEMPLATES]).mean(0) for name in CLASSES
        ]))
        similar = images_of(model, range(24)) @ classifier.T
        labels = np.arange(24) % len(CLASSES)
        ranks = np.array([np.sum(row > row[label]) for row, label in zip(similar, labels, strict=True)])
        found = similar.argmax(1)
        assert scores["samples"] == 24
        assert scores["top5"] == 1.0
        assert scores["top1"] == pytest.approx(np.mean(found == labels))
        assert scores["mean_per_class"] == pytest.approx(np.mean([np.mean(found[labels == c] == c) for c in range(5)]))
        assert np.mean(ranks < 1) >= scores["top1"]
        worst = scores["worst_classes"][0]
        wrong = found[labels == worst["row"]]
        assert worst["top1"] == pytest.approx(np.mean(wrong == worst["row"]), abs=1e-4)
        assert worst["class"] == CLASSES[worst["row"]]
        most = worst["mistaken_for"][0]
        assert most["share"] == pytest.approx(np.mean(wrong == most["row"]), abs=1e-4)

    def test_retrieval_counts_any_of_several_captions(self, retrieval: Path, model: LoadedModel) -> None:
        task = RetrievalTask(name="captions", kind="retrieval", shards=str(retrieval))
        scores = evaluate({"student": model}, task)["student"]

        captions = [[f"caption {w} of {n}" for w in ("one", "two", "three")[: 1 + n % 3]] for n in range(15)]
        owner = np.array([n for n, texts in enumerate(captions) for _ in texts])
        similar = texts_of(model, [text for texts in captions for text in texts]) @ images_of(model, range(15)).T
        for k in (1, 5, 10):
            best_images = np.argsort(-similar, axis=1)[:, :k]
            best_texts = owner[np.argsort(-similar.T, axis=1)[:, :k]]
            to_image = np.mean([owner[t] in best_images[t] for t in range(len(owner))])
            to_text = np.mean([n in best_texts[n] for n in range(15)])
            assert scores[f"text_to_image_r{k}"] == pytest.approx(to_image)
            assert scores[f"image_to_text_r{k}"] == pytest.approx(to_text)
        assert (scores["texts"], scores["samples"]) == (len(owner), 15)

    def test_a_probe_learns_from_the_train_split(self, classification: Path, model: LoadedModel) -> None:
        task = LinearProbeTask(name="probe", kind="linear_probe", shards=str(classification))

        scores = evaluate({"student": model}, task)["student"]

        assert (scores["samples"], scores["train_samples"]) == (24, 40)
        assert scores["worst_classes"][0]["class"] in {"0", "1", "2", "3", "4"}


class TestFolders:
    def test_a_root_is_its_test_split(self, classification: Path) -> None:
        root, split = (resolve_task(zero_shot(folder)) for folder in (classification, f"{classification}/test/"))

        assert root == split
        assert root.shards == [f"{classification}/test/{number}.tar" for number in (0, 1)]

    def test_fields_of_the_task_override_those_of_the_folder(self, classification: Path) -> None:
        task = resolve_task(zero_shot(classification, classes=["a", "b"], templates=["{}"]))

        assert isinstance(task, ZeroShotTask)
        assert (task.classes, task.templates) == (["a", "b"], ["{}"])

    @pytest.mark.parametrize("shards", ["/data/{0..3}.tar", "/data/*.tar", "/data/a.tar.gz", "/nowhere/folder", ["/data/test"]])
    def test_shards_by_name_are_unchanged(self, shards: str | list[str]) -> None:
        task = zero_shot("x", classes=["a"]).model_copy(update={"shards": shards})

        assert find_split(shards) is None
        assert resolve_task(task).shards == shards
        assert resolve_task(task).templates == ["a photo of a {}."]  # type: ignore[union-attr]

    def test_a_page_of_the_hub_becomes_its_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = "https://huggingface.co/datasets/clip-benchmark/wds_cars"
        files = {f"{hub}/raw/main/test/nshards.txt": "2\n", f"{hub}/raw/main/classnames.txt": "a\nb\n",
                 f"{hub}/raw/main/zeroshot_classification_templates.txt": "a {c}\n"}

        def read_file(address: str, limit: int) -> bytes:
            if address not in files:
                raise FileNotFoundError(address)
            return files[address].encode()

        monkeypatch.setattr("tinyclip_workers.evaluation.clip_benchmark.read_file", read_file)

        task = resolve_task(zero_shot(f"{hub}/tree/main"))

        assert task.shards == [f"{hub}/resolve/main/test/{number}.tar" for number in (0, 1)]

    @pytest.mark.parametrize(
        ("file", "text", "field", "message"),
        [
            ("dataset_type.txt", "multilabel", "shards", "several labels for an image"),
            ("dataset_type.txt", "retrieval", "kind", "is a retrieval set; use kind: retrieval"),
            ("test/nshards.txt", "many", "shards", "must hold the number of shards, 1 to 500,000"),
            ("classnames.txt", "", "classes", "has no classnames.txt; give classes"),
            ("zeroshot_classification_templates.txt", "", "templates", "give templates"),
        ],
    )
    def test_a_folder_that_does_not_fit_is_refused_by_field(
        self, tmp_path: Path, file: str, text: str, field: str, message: str
    ) -> None:
        (tmp_path / "test").mkdir()
        written = {"test/nshards.txt": "1", "classnames.txt": "a", "zeroshot_classification_templates.txt": "{c}", file: text}
        for name, content in written.items():
            (tmp_path / name).write_text(content)

        with pytest.raises(DataError, match=message) as refused:
            resolve_task(zero_shot(tmp_path))

        assert refused.value.field.endswith(field)
