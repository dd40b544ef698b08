"""Evaluation tasks on small shards: scores, counts, and the same images for student and teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tinyclip.schemas.spec import LinearProbeTask, RetrievalTask, ZeroShotTask
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.evaluation.compatibility import STUDENT_TEXTS, TEACHER_TEXTS, SharedSpace
from tinyclip_workers.evaluation.embedding import IMAGE_BATCH
from tinyclip_workers.evaluation.labels import ClassRows, fill_template, task_lines
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reduced_model, tokens_of

from tests.workers.evaluations import evaluate
from tests.workers.models import tiny_layout, tiny_model
from tests.workers.shards import COLORS, color_samples, write_shard

CLASSES = list(COLORS)


def random_model(seed: int = 0, name: str = "student") -> LoadedModel:
    layout = tiny_layout()
    colors = (0.5, 0.5, 0.5)
    return LoadedModel(tiny_model(seed), layout, make_tokenizer(layout), colors, colors, name, "")


def color_model() -> LoadedModel:
    """A model that recognises colors: an image's mean color, and a fixed direction for each color's name."""

    class ColorModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

        def encode_image(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return F.pad(images_BCHW.mean(dim=(2, 3)) + 1, (0, 13))

        def encode_text(self, tokens_BT: torch.Tensor) -> torch.Tensor:
            colors = torch.tensor([*COLORS.values()]).float() / 255 * 2
            return F.pad(colors[tokens_BT[:, 0]], (0, 13))

    def tokenizer(texts: str | list[str]) -> torch.Tensor:
        return torch.tensor([[next(i for i, name in enumerate(CLASSES) if name in text)] for text in texts])

    return replace(random_model(), model=ColorModel(), tokenizer=tokenizer)


@pytest.fixture
def shard(tmp_path: Path) -> str:
    return write_shard(tmp_path / "val.tar", color_samples(40))


def zero_shot(shards: str | list[str], **changes: Any) -> ZeroShotTask:
    task = {"name": "colors", "kind": "zero_shot", "shards": shards, "image_key": ["png"], "classes": CLASSES}
    return ZeroShotTask.model_validate({**task, "templates": ["a {} square"], **changes})


def test_a_model_with_nested_embeddings_has_the_metrics_of_each_size(shard: str) -> None:
    nested = replace(color_model(), embedding_sizes=(1, 3, 16))
    retrieval = RetrievalTask(name="r", kind="retrieval", shards=shard, image_key=["png"], caption_key="json.name")

    for task, metric in ((zero_shot(shard), "top1"), (retrieval, "image_to_text_r1")):
        scores = evaluate({"student": nested, "teacher": color_model()}, task)

        by_size = scores["student"]["by_size"]
        assert list(by_size) == ["1", "3"]
        assert by_size["1"][metric] < by_size["3"][metric] == scores["student"][metric] == 1.0
        assert "by_size" not in scores["teacher"]


def test_a_student_in_its_teachers_space_is_searched_across_the_models(shard: str) -> None:
    axes_EE = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(3))).Q

    class Rotated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

        def encode_image(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return color_model().model.encode_image(images_BCHW) @ axes_EE

        def encode_text(self, tokens_BT: torch.Tensor) -> torch.Tensor:
            return color_model().model.encode_text(tokens_BT) @ axes_EE

    models = {"student": replace(color_model(), model=Rotated()), "teacher": color_model()}
    retrieval = RetrievalTask(name="r", kind="retrieval", shards=shard, image_key=["png"], caption_key="json.name")

    shares = []
    for space in (SharedSpace(axes_EE), SharedSpace()):
        scores = evaluate_tasks(models, [retrieval], shared=space)["r"]
        shares.append([scores["student"]["with_teacher"][name]["text_to_image_r1"] for name in (STUDENT_TEXTS, TEACHER_TEXTS)])
        assert "with_teacher" not in scores["teacher"]

    assert shares[0] == [1.0, 1.0]
    assert max(shares[1]) < 1.0


@pytest.mark.parametrize("label_key", ["cls", "json.label", "json.name"])
def test_zero_shot_scores_of_a_perfect_model_are_1(shard: str, label_key: str) -> None:
    scores = evaluate({"student": color_model()}, zero_shot(shard, label_key=label_key))["student"]

    assert (scores["top1"], scores["mean_per_class"], scores["per_class"]) == (1.0, 1.0, [1.0] * 4)
    assert (scores["samples"], scores["skipped"]) == (40, 0)
    assert scores["ms_per_image"] > 0


def test_student_and_teacher_have_scores_of_their_own_on_the_same_images(shard: str) -> None:
    scores = evaluate({"student": random_model(), "teacher": color_model()}, zero_shot(shard))

    assert scores["teacher"]["top1"] == 1.0
    assert scores["student"]["top1"] < 0.8
    assert scores["student"]["samples"] == scores["teacher"]["samples"] == 40


def test_retrieval_finds_the_images_of_shared_captions(tmp_path: Path) -> None:
    samples = [{**s, "txt": f"a {s['json']['name']} square"} for s in color_samples(16)]
    task = RetrievalTask(name="r", kind="retrieval", shards=write_shard(tmp_path / "r.tar", samples), image_key=["png"])

    scores = evaluate({"student": color_model()}, task)["student"]

    assert (scores["image_to_text_r1"], scores["text_to_image_r1"], scores["texts"]) == (1.0, 1.0, 4)


def test_a_probe_learns_the_colors_even_from_a_random_tower(tmp_path: Path, shard: str) -> None:
    train = write_shard(tmp_path / "train.tar", color_samples(60, start=40))
    task = LinearProbeTask(name="p", kind="linear_probe", shards=shard, train_shards=train, image_key=["png"])

    scores = evaluate({"student": random_model()}, task)["student"]

    assert scores["top1"] > 0.9
    assert scores["train_samples"] == 60


def test_where_and_holdout_select_the_samples(shard: str) -> None:
    keys = [s["__key__"] for s in color_samples(40)]

    odd = evaluate({"student": color_model()}, zero_shot(shard, where={"odd": True}))["student"]
    held_out = evaluate({"student": color_model()}, zero_shot(shard, subset="holdout"), holdout=0.3)["student"]

    assert odd["samples"] == 20
    assert odd["per_class"] == [None, 1.0, None, 1.0]
    assert held_out["samples"] == sum(is_held_out(key, 0.3) for key in keys) > 0


def test_broken_samples_are_skipped_and_counted(tmp_path: Path) -> None:
    samples = color_samples(8)
    samples[1]["png"] = b"not an image"
    samples[2]["json"] = "{"
    del samples[3]["cls"]
    shard = write_shard(tmp_path / "b.tar", samples)

    scores = evaluate({"student": color_model()}, zero_shot(shard, where={"odd": True}))["student"]

    assert (scores["samples"], scores["skipped"]) == (2, 3)


def test_a_broken_shard_is_counted(tmp_path: Path, shard: str) -> None:
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 1000)

    scores = evaluate({"student": color_model()}, zero_shot([shard, str(tmp_path / "broken.tar")]))["student"]

    assert (scores["samples"], scores["skipped_shards"]) == (40, 1)


def test_a_label_without_a_class_is_skipped_and_counted(tmp_path: Path) -> None:
    samples = color_samples(8)
    samples[2]["cls"] = "4"

    scores = evaluate({"student": color_model()}, zero_shot(write_shard(tmp_path / "b.tar", samples)))["student"]

    assert (scores["samples"], scores["skipped"]) == (7, 1)


def test_labels_of_another_class_list_raise_an_error_with_the_sample(tmp_path: Path) -> None:
    samples = color_samples(4)
    for sample in samples[2:]:
        sample["cls"] = "4"
    del samples[1]["cls"]

    with pytest.raises(DataError, match="sample s0002 has label 4, but the 4 classes are 0 to 3"):
        evaluate({"student": color_model()}, zero_shot(write_shard(tmp_path / "b.tar", samples)))


def test_tasks_of_the_same_shards_have_the_same_scores_as_each_alone(tmp_path: Path, shard: str) -> None:
    samples = color_samples(12)
    samples[1]["png"] = b"not an image"
    del samples[2]["cls"]
    other = write_shard(tmp_path / "other.tar", samples)
    tasks = [
        zero_shot(shard),
        RetrievalTask(name="r", kind="retrieval", shards=other, image_key=["png"]),
        zero_shot(other, name="odd", where={"odd": True}),
        zero_shot(other, name="all"),
    ]
    models = {"student": random_model(), "teacher": color_model()}

    together = evaluate_tasks(models, tasks)

    for task in tasks:
        alone = evaluate(models, task)
        for model in models:
            assert {**together[task.name][model], "ms_per_image": 0} == {**alone[model], "ms_per_image": 0}
    counts = {name: (scores["student"]["samples"], scores["student"]["skipped"]) for name, scores in together.items()}
    assert counts == {"colors": (40, 0), "r": (11, 1), "odd": (5, 1), "all": (10, 2)}


@pytest.mark.parametrize("changes", [{"where": {"odd": "perhaps"}}, {"image_key": ["jpg"]}, {"label_key": "json.nothing"}])
def test_nothing_to_evaluate_raises_an_error_with_the_task(shard: str, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="task colors has nothing to evaluate"):
        evaluate({"student": color_model()}, zero_shot(shard, **changes))


def test_the_mode_of_the_models_is_restored(shard: str) -> None:
    student, teacher = random_model(0), random_model(1)
    student.model.train()
    before = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}

    evaluate({"student": student, "teacher": teacher}, zero_shot(shard))

    assert student.model.training
    assert not teacher.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in student.model.state_dict().items())


def test_a_pass_over_several_batches_keeps_the_order(tmp_path: Path) -> None:
    many = write_shard(tmp_path / "many.tar", color_samples(IMAGE_BATCH + 5))

    scores = evaluate({"student": color_model()}, zero_shot(many))["student"]

    assert (scores["samples"], scores["top1"]) == (IMAGE_BATCH + 5, 1.0)


def test_class_lists_are_read_from_lines_or_json(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("red\n\n green \n")
    (tmp_path / "c.json").write_text('["red", "green"]')
    (tmp_path / "bad.json").write_text('["red",')

    assert task_lines(str(tmp_path / "c.txt")) == task_lines(str(tmp_path / "c.json")) == ["red", "green"]
    with pytest.raises(ValueError, match=r"bad\.json"):
        task_lines(str(tmp_path / "bad.json"))


def test_both_placeholders_of_templates_are_filled() -> None:
    assert fill_template("a {} here", "cat") == fill_template("a {c} here", "cat") == "a cat here"


@pytest.mark.parametrize(
    ("label", "row"), [("1", 1), ("blue", 2), ("4", None), ("pink", None), ("-1", None), ("²", None), ("9" * 5000, None)]
)
def test_a_label_is_a_row_or_a_name(label: str, row: int | None) -> None:
    assert ClassRows(CLASSES).row(label) == row


def test_unknown_tokens_of_a_reduced_vocabulary_are_counted(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", color_samples(8))
    tasks = [
        ZeroShotTask(name="z", kind="zero_shot", shards=shard, classes=list(COLORS), templates=["a {} square"]),
        RetrievalTask(name="r", kind="retrieval", shards=shard),
    ]
    whole = random_model()
    texts = [f"a {color} square {number}" for color in ("red", "blue") for number in range(8)]
    small = reduced_model(whole, Vocabulary.of_tokens(tokens_of(texts, 16)))

    scores = evaluate_tasks({"whole": whole, "small": small}, tasks)

    assert [scores[task]["small"]["unknown_tokens"] for task in ("z", "r")] == [2, 4]  # green and white
    assert all("unknown_tokens" not in scores[task]["whole"] for task in ("z", "r"))
