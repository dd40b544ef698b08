"""Several teachers: each encodes the batch in its own size, colours and tokens, and all are recorded."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tinyclip.schemas import JobSpec, ModelVersion
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageAugmentation
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import TwoTowers
from tinyclip_workers.runtime.attempt import FinishedStudent
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.driver import _load_teacher_layout
from tinyclip_workers.training.teachers.frozen import freeze_teachers, teachers_forward
from tinyclip_workers.training.teachers.inputs import InputPreparation, PreparedBatch
from tinyclip_workers.versions.writer import write_student_version

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.one_step import accumulate_gradients
from tests.workers.version_case import finished_student, job_run, weights_of

FIRST_COLORS = ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
TEXTS = ["a red square", "a blue square in the rain", "nothing", "a cat", "two cats", "a green bar"]
OTHER_COLORS = ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))


def loaded(seed: int, layout: Layout, colors: Any = FIRST_COLORS) -> LoadedModel:
    model = tiny_model(seed, layout)
    return LoadedModel(model, layout, make_tokenizer(layout), *colors, name=f"teacher-{seed}", digest="")


def other_layout() -> Layout:
    """Return a layout with larger images, longer texts and other embeddings."""
    layout = tiny_layout()
    image = layout.image.model_copy(update={"image_size": 64})
    text = layout.text.model_copy(update={"context_length": 20})
    return layout.model_copy(update={"embed_dim": 24, "image": image, "text": text})


@pytest.fixture(scope="module")
def models() -> list[LoadedModel]:
    return [loaded(1, tiny_layout()), loaded(2, other_layout(), OTHER_COLORS)]


def crops(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


def prepared(models: list[LoadedModel]) -> PreparedBatch:
    readings = [teacher.reading for teacher in freeze_teachers(models, [0.5, 0.5], None, models[0])]
    prepare = InputPreparation(FIRST_COLORS, readings, ImageAugmentation(), torch.device("cpu"))
    return prepare.prepared([crops(32), crops(64)], [models[0].tokenizer(TEXTS)])


def test_each_encodes_its_own_form_as_it_does_alone(models: list[LoadedModel]) -> None:
    teachers = freeze_teachers(models, [0.75, 0.25], None, models[0])

    embedded = teachers_forward(teachers, prepared(models).teachers)

    with torch.no_grad():
        alone = [
            TwoTowers(models[0].model)(normalize(crops(32), *FIRST_COLORS), models[0].tokenizer(TEXTS)),
            TwoTowers(models[1].model)(normalize(crops(64), *OTHER_COLORS), models[1].tokenizer(TEXTS)),
        ]
    for found, (image_BE, text_BE, scale, _) in zip(embedded, alone, strict=True):
        torch.testing.assert_close(found.image_BE, image_BE, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.text_BE, text_BE, rtol=1e-4, atol=1e-5)
        assert found.scale == scale
    assert [(found.weight, found.image_BE.shape[1]) for found in embedded] == [(0.75, 16), (0.25, 24)]
    assert [teacher.embed_dim for teacher in teachers] == [16, 24]


def test_the_same_form_is_made_once(models: list[LoadedModel]) -> None:
    inputs = prepared(models)

    assert inputs.teachers[0].images_BCHW is inputs.student.images_BCHW
    assert inputs.teachers[1].tokens_BT is inputs.student.tokens_BT


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(models: list[LoadedModel]) -> None:
    inputs = prepared(models)
    teachers = freeze_teachers(models, [0.5, 0.5], 20.0, models[0])
    found = []
    for micro_batch in (None, 4):
        student = TwoTowers(tiny_model(7)).eval()
        own = inputs.student.images_BCHW, inputs.student.tokens_BT
        loss, _ = accumulate_gradients(
            student, teachers, own, {"affinity": 1.0}, micro_batch=micro_batch, teacher_inputs=inputs.teachers
        )
        gradient = cast(torch.Tensor, student.clip.text_projection.grad)
        found.append((loss.item(), gradient))

    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


class TestRecords:
    """Version and events of a job with two teachers."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Any:
        run, stage = job_run(tmp_path)
        for name, layout in (("teacher", tiny_layout()), ("large", other_layout())):
            write_folder(tmp_path / name, tiny_model(3, layout), layout)
        teachers = [
            {"model": f"local-dir:{tmp_path}/teacher", "weight": 3},
            {"model": f"local-dir:{tmp_path}/large"},
        ]
        document = run.document.spec.model_dump(mode="json") | {"teacher": None, "teachers": teachers}
        run.document.spec = JobSpec.model_validate(document)
        return run, stage

    def test_lineage_and_card_name_both(self, run: Any) -> None:
        job_run, stage = run
        student = tiny_model(layout=stage.layout)

        version = write_student_version(job_run, finished_student(stage, student))

        card = job_run.store.read_bytes(f"{job_run.model_folder()}/README.md").decode()
        assert version.teacher == "teacher"
        assert [(t["name"], t["share"]) for t in version.lineage["teachers"]] == [("teacher", 0.75), ("large", 0.25)]
        assert version.lineage["teacher"]["sha256"] == version.lineage["teachers"][0]["sha256"]
        assert "distilled from **teacher** (75%) and **large** (25%) by TinyCLIP" in card
        assert "inherits from teacher, which is the teacher of the tables below" in card
        assert "objective: affinity 1" in card

    def test_one_teacher_alone_is_no_list_in_the_lineage(self, tmp_path: Path) -> None:
        run, stage = job_run(tmp_path)
        write_folder(tmp_path / "teacher", tiny_model(), tiny_layout())

        finished = FinishedStudent(stage.layout, weights_of(tiny_model(layout=stage.layout)), {})
        version: ModelVersion = write_student_version(run, finished)

        assert "teachers" not in version.lineage
        assert "clusters" not in version.lineage

    def test_the_event_has_the_first_and_all(self, run: Any) -> None:
        sent: list[dict[str, Any]] = []

        class Events:
            def send(self, type: str, **event: Any) -> None:
                sent.append({"type": type, **event})

        layout = _load_teacher_layout(run[0], cast(EventWriter, Events()))

        [event] = sent
        assert layout == tiny_layout()
        assert event["message"] == "teachers teacher (75%) and large (25%)"
        assert event["data"]["layout"]["embed_dim"] == 16
        assert [(t["name"], t["layout"]["embed_dim"]) for t in event["data"]["teachers"]] == [("teacher", 16), ("large", 24)]


def test_shares_add_up_and_the_first_counts_as_the_teacher() -> None:
    spec = JobSpec.model_validate(
        {
            "name": "two",
            "teachers": [{"model": "ViT-L-14", "weight": 3}, {"model": "ViT-B-16"}],
            "data": {"train": {"shards": "x"}},
            "stages": [{"name": "s", "student": {"text": {}}, "train": {"steps": 1}}],
        }
    )

    assert spec.first_teacher is not None
    assert spec.first_teacher.model == "ViT-L-14"
    assert [(at.pointer, at.share) for at in spec.every_teacher()] == [("/teachers/0", 0.75), ("/teachers/1", 0.25)]
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
