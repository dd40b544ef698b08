"""Teachers and students of other architectures in whole short jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip.schemas.layouts import Architecture, Layout
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.training import worker
from tinyclip_workers.training.teachers.inputs import PreparedBatch

from tests.workers.attempts import Job, no_cluster
from tests.workers.auto_stages import TEXT, VIT
from tests.workers.families import FAMILIES, library_embeddings, write_family
from tests.workers.presets import small_presets
from tests.workers.shapes_data import write_shards

EXAMPLE = Path("examples/emoji/teachers/vit").absolute()
OWN = {"embed_dim": 16, "image": VIT, "text": TEXT}
LIBRARY_STUDENTS = {
    "small-MobileCLIP2": {"image": {"image_size": 64}, "text": {"context_length": 12}, "embed_dim": 24},
    "small-ConvNeXt": {"image": {"image_size": 64}, "text": {"context_length": 12}},
}


@pytest.fixture(autouse=True)
def _no_cluster() -> Iterator[None]:
    with no_cluster():
        yield


def context_of(model: Any) -> int:
    """Return the tokens that a library's model reads; those of transformers read any number."""
    return 0 if hasattr(model, "get_text_features") else model.text.context_length if hasattr(model, "text") else 16


def spec_of(folder: Path, teachers: list[str], student: dict[str, Any], **changes: Any) -> JobSpec:
    shards = write_shards(folder / "data", pairs=24)
    return JobSpec.model_validate(
        {
            "name": "shapes",
            "teachers": [{"model": f"local-dir:{teacher}"} for teacher in teachers],
            "data": {"train": {"shards": shards, "caption_key": "json.captions", "holdout": 0.25}},
            "evaluation": {"tasks": [{"name": "find", "kind": "retrieval", "shards": shards}]},
            "stages": [{"name": "one", "inherit": "none", "student": student, "train": {"steps": 2}}],
            "objective": {"affinity": 1, "feature_mimicry": 1},
            "batch_size": 8, "precision": "fp32", **changes,
        }
    )  # fmt: skip


BESIDE = ("EVA02", "SigLIP 2", "RoBERTa", "transformers CLIP")
"""Families that teach beside another teacher in each run: other images, a bias, and tokens of either library; others alone."""


@pytest.mark.parametrize(
    ("family", "beside"),
    [
        pytest.param(family, beside, marks=[pytest.mark.long] * (beside != (family in BESIDE)))
        for beside in (False, True) for family in FAMILIES
    ],
)
def test_it_teaches_alone_and_beside_the_teacher_of_the_example(
    tmp_path: Path, family: str, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = write_family(tmp_path / "teacher", family)
    seen: list[tuple[PreparedBatch, Any]] = []
    forward = worker.StageTrainer.train_step

    def train_step(self: Any, batch: Any, command: Any) -> Any:
        seen.append((self.prepare(batch), self.teachers))
        return forward(self, batch, command)

    monkeypatch.setattr(worker.StageTrainer, "train_step", train_step)
    teachers = [EXAMPLE, tmp_path / "teacher"] if beside else [tmp_path / "teacher"]
    job = Job(tmp_path / "job", spec_of(tmp_path, [str(teacher) for teacher in teachers], OWN))

    assert job.attempt()

    inputs, frozen = seen[0]
    assert inputs.student.images_BCHW.shape[-1] == 32
    assert inputs.teachers[-1].images_BCHW.shape[-1] == load_folder(str(tmp_path / "teacher")).layout.image_size
    with torch.no_grad():
        found, (images_BCHW, tokens_BT) = frozen[-1](*inputs.teachers[-1]), inputs.teachers[-1]
        whole_BT = torch.nn.functional.pad(tokens_BT, (0, max(0, context_of(theirs) - tokens_BT.shape[1])))
        expected = library_embeddings(theirs, images_BCHW, whole_BT)
    torch.testing.assert_close(found.image_BE, expected["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_BE, expected["text"], atol=1e-5, rtol=0)
    assert len(job.events("agreement.measured")) > 0
    assert job.version().evaluation["find"].teacher is not None


def test_student_and_teacher_see_the_same_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_family(tmp_path / "teacher", "EVA02")
    student = {**OWN, "image": {**VIT, "image_size": 64}}
    augment = {"crop_scale": [0.3, 0.6], "degrees": 20, "horizontal_flip": 0.5, "color_jitter": 0.3}
    spec = spec_of(tmp_path, [str(tmp_path / "teacher")], student)
    spec.data.train.augment = spec.data.train.augment.model_validate(augment)
    seen: list[PreparedBatch] = []
    forward = worker.StageTrainer.train_step

    def train_step(self: Any, batch: Any, command: Any) -> Any:
        seen.append(self.prepare(batch))
        return forward(self, batch, command)

    monkeypatch.setattr(worker.StageTrainer, "train_step", train_step)

    assert Job(tmp_path / "job", spec).attempt()

    own, theirs = seen[0].student.images_BCHW, seen[0].teachers[0].images_BCHW
    assert (own.shape[-1], theirs.shape[-1]) == (64, 224)
    own, theirs = own - own.mean((2, 3), keepdim=True), theirs - theirs.mean((2, 3), keepdim=True)
    small = torch.nn.functional.interpolate(theirs, (64, 64), mode="bilinear", antialias=True)
    alike = torch.nn.functional.cosine_similarity(own.flatten(1), small.flatten(1))
    assert alike.min() > 0.97  # other colours and filters, the same picture
    others = torch.nn.functional.cosine_similarity(own.flatten(1), small.roll(1, 0).flatten(1))
    assert others.median() < 0.8


@pytest.mark.parametrize("preset", LIBRARY_STUDENTS)
def test_a_student_of_another_architecture_opens_in_open_clip(tmp_path: Path, preset: str) -> None:
    student = {"preset": preset, **LIBRARY_STUDENTS[preset]}
    job = Job(tmp_path / "job", spec_of(tmp_path, [str(EXAMPLE)], student))

    with small_presets():
        assert job.attempt()

    version, folder = job.version(), job.store.uri("models/shapes/1")
    assert isinstance(version.layout, Architecture)
    assert version.image_size == 64
    assert version.evaluation["find"].student.keys() == version.evaluation["find"].teacher.keys()
    ours, theirs = load_folder(folder), open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()
    images_BCHW, tokens_BT = torch.randn(2, 3, 64, 64), ours.tokenizer(["a red square", "a cat"])
    expected = library_embeddings(theirs, images_BCHW, tokens_BT)
    found = library_embeddings(ours.model, images_BCHW, tokens_BT)
    torch.testing.assert_close(found, expected)


LEADING = {"inherit": "manual", "select": "leading"}
BY_IMPORTANCE = {"inherit": "manual", "select": "importance"}
JOINT = {"inherit": "auto", "prune": {"search": "joint", "prune_step": 2, "target_sparsity": 0.4, "sparsity_warmup": 1}}
SEARCHED = {"inherit": "auto", "prune": {"search": "importance", "target_sparsity": 0.4}}
HALF = {"image": {"width": 32, "layers": 2}, "text": {"width": 16, "layers": 1}}


@pytest.mark.parametrize("family", ["SigLIP", "SigLIP 2"])
@pytest.mark.parametrize(
    "stages",
    [
        pytest.param([LEADING], id="leading"),
        pytest.param([BY_IMPORTANCE], id="importance", marks=pytest.mark.long),  # the next one begins with it
        pytest.param([BY_IMPORTANCE, JOINT], id="joint"),
        pytest.param([SEARCHED], id="searched"),
    ],
)
def test_a_student_inherits_weights_and_tokens_of_siglip(tmp_path: Path, family: str, stages: list[dict[str, Any]]) -> None:
    write_family(tmp_path / "teacher", family)
    teacher = load_folder(str(tmp_path / "teacher"))
    train = {"train": {"steps": 4}}
    every = [{"name": f"s{i}", **stage, **train, **({"student": HALF} if stage["inherit"] == "manual" else {})}
             for i, stage in enumerate(stages)]  # fmt: skip
    objective = {"sigmoid_affinity": 1, "affinity": 0, "feature_mimicry": 0}
    spec = spec_of(tmp_path, [str(tmp_path / "teacher")], {}, stages=every, objective=objective)
    job = Job(tmp_path / "job", spec)

    assert job.attempt()

    version, student = job.version(), load_folder(job.store.uri("models/shapes/1"))
    assert isinstance(version.layout, Layout)
    assert version.layout.is_siglip
    if stages[-1]["inherit"] == "manual":
        assert (version.layout.image.width, version.layout.text.layers) == (32, 1)
    assert version.layout.image.pool is not None
    assert version.layout.image.pool.width == 64
    assert version.layout.image.tanh_gelu == (family == "SigLIP 2")
    texts = ["a red square", "the photo of a blue circle"]
    assert student.tokenizer(texts).equal(teacher.tokenizer(texts))
    assert version.layout.vocab_size == teacher.layout.vocab_size
    assert job.weights()["logit_bias"] == pytest.approx(float(teacher.model.state_dict()["logit_bias"]), abs=0.1)
    assert "with_teacher" in version.evaluation["find"].student


def test_a_sigmoid_teacher_teaches_a_student_with_a_bias(tmp_path: Path) -> None:
    write_family(tmp_path / "teacher", "SigLIP")
    objective = {"sigmoid_affinity": 1, "sigmoid_contrastive": 1, "affinity": 0, "feature_mimicry": 0}
    teachers = [str(EXAMPLE), str(tmp_path / "teacher")]
    job = Job(tmp_path / "job", spec_of(tmp_path, teachers, OWN, objective=objective, temperature={"student": "learned"}))

    assert job.attempt()

    weights = job.weights()
    assert weights["logit_bias"] != -10
    assert weights["logit_bias"] == pytest.approx(-10, abs=0.1)
