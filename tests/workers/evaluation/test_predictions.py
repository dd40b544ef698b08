"""Predictions for each image of a zero-shot task, and the file that they are kept in."""

from pathlib import Path

import pytest
import torch
from tinyclip.artifacts import predictions as file_format
from tinyclip.artifacts.predictions import ModelPredictions, TaskPredictions, UnreadablePredictions
from tinyclip.schemas.spec import ZeroShotTask
from tinyclip_workers.data.thumbnails import thumbnail_at
from tinyclip_workers.evaluation import predictions
from tinyclip_workers.evaluation.predictions import PredictedTasks, describe, most_likely
from tinyclip_workers.evaluation.tasks import ModelScores, evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import make_tokenizer

from tests.workers.models import tiny_layout, tiny_model
from tests.workers.shards import COLORS, color_samples, write_shard

CLASSES = list(COLORS)


def model(seed: int) -> LoadedModel:
    layout, colors = tiny_layout(), (0.5, 0.5, 0.5)
    return LoadedModel(tiny_model(seed), layout, make_tokenizer(layout), colors, colors, f"m{seed}", "")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ZeroShotTask:
    folder = tmp_path_factory.mktemp("predictions")
    shards = [write_shard(folder / f"{n}.tar", color_samples(30, start=30 * n)) for n in range(2)]
    return ZeroShotTask(name="colors", kind="zero_shot", shards=shards, image_key=["png"], classes=CLASSES)


def predict(task: ZeroShotTask) -> tuple[TaskPredictions, ModelScores]:
    predicted: PredictedTasks = {}
    scores = evaluate_tasks({"student": model(0), "teacher": model(1)}, [task], predicted=predicted)
    return predicted["colors"], scores["colors"]


def test_they_agree_with_the_metrics(task: ZeroShotTask) -> None:
    found, scores = predict(task)

    assert found.keys == [f"s{number:04d}" for number in range(60)]
    assert (found.images, found.classes, len(found.shards)) == (60, CLASSES, 2)
    for role in ("student", "teacher"):
        right = [row == label for row, label in zip(found.models[role].rows, found.labels, strict=True)]
        assert sum(right) / 60 == pytest.approx(scores[role]["top1"])
        assert all(1 / len(CLASSES) <= score <= 1 for score in found.models[role].scores)


def test_each_image_is_found_again_at_its_place(task: ZeroShotTask) -> None:
    found, _ = predict(task)

    for number in (0, 29, 30, 59):
        url = found.shards[found.shard[number]]
        assert thumbnail_at(url, found.keys[number], found.start[number], found.length[number], found.image_key, 16)


def test_no_predictions_are_made_unless_they_are_asked_for(task: ZeroShotTask) -> None:
    assert evaluate_tasks({"student": model(0)}, [task])["colors"]["student"]["samples"] == 60


def test_only_the_first_images_of_a_large_task_are_kept(task: ZeroShotTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MAX_IMAGES", 40)
    fewer, _ = predict(task)
    monkeypatch.setattr(predictions, "MAX_CHARACTERS", 5 * 7)
    fewest, _ = predict(task)

    kept = describe(fewer, fewer.pack())
    assert (kept.images, kept.kept, kept.teacher, kept.evaluation) == (60, 40, True, None)
    assert (len(fewer.models["student"].rows), len(fewer.labels), len(fewer.shards)) == (40, 40, 2)
    assert (len(fewest.keys), len(fewest.shards)) == (7, 1)


def test_equal_scores_have_the_class_of_the_metrics() -> None:
    scores_NC = torch.zeros(3, 6)

    found = most_likely(scores_NC, 100.0)

    assert found.rows == scores_NC.topk(5, dim=1).indices[:, 0].tolist()
    assert found.scores == [0.1667] * 3


class TestFile:
    def test_it_is_read_as_it_was_written(self, task: ZeroShotTask) -> None:
        found, _ = predict(task)

        assert TaskPredictions.unpack(found.pack()) == found
        assert found.pack() == found.pack()

    def test_the_digest_is_that_of_images_and_classes(self, task: ZeroShotTask) -> None:
        found, _ = predict(task)
        other_answers = found.model_copy(update={"models": {"student": ModelPredictions(rows=[0] * 60, scores=[1.0] * 60)}})
        other_labels = found.model_copy(update={"labels": [0] * 60})

        assert other_answers.images_digest() == found.images_digest() != other_labels.images_digest()

    def test_damaged_files_are_refused(self, task: ZeroShotTask, monkeypatch: pytest.MonkeyPatch) -> None:
        found, _ = predict(task)
        data = found.pack()
        for damaged in (
            b"", b"{}", data[:-20], found.model_copy(update={"labels": [0]}).pack(),
            found.model_copy(update={"labels": [99] * 60}).pack(), found.model_copy(update={"shard": [2] * 60}).pack(),
        ):  # fmt: skip
            with pytest.raises(UnreadablePredictions):
                TaskPredictions.unpack(damaged)
        monkeypatch.setattr(file_format, "MAX_JSON_BYTES", 100)
        with pytest.raises(UnreadablePredictions, match="more than 100 bytes"):
            TaskPredictions.unpack(data)


def test_keys_are_printable(tmp_path: Path) -> None:
    samples = [{**sample, "__key__": f"a\x1b[31m{sample['__key__']}"} for sample in color_samples(3)]
    shard = write_shard(tmp_path / "odd.tar", samples)
    task = ZeroShotTask(name="colors", kind="zero_shot", shards=shard, image_key=["png"], classes=CLASSES)

    found, _ = predict(task)

    assert found.keys[0] == "a\\x1b[31ms0000"
    assert thumbnail_at(shard, found.keys[0], found.start[0], found.length[0], ["png"], 16)
