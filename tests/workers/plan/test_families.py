"""Plans with teachers of every family: what students inherit from them, and what is refused with the recipe that works."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from tinyclip.schemas import FieldError, JobSpec, Layout, Plan
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.plan.specs import make_plan
from tinyclip_workers.versions.writer import model_files

from tests.workers.families import FAMILIES, write_family
from tests.workers.inheritance.towers import random_clip, siglip_layout
from tests.workers.model.test_tokenizer_files import word_tokenizer
from tests.workers.shapes_data import write_shards

SIGLIP = ("SigLIP", "SigLIP 2", "transformers SigLIP")
SMALL = {"image": {"width": 32, "layers": 1}, "text": {"width": 16, "layers": 1}}
RECIPE = {"inherit": "none", "student": {"preset": "TinyCLIP-ViT-8M-16-Text-3M"}}


def planned(folder: Path, family: str, *stages: dict[str, Any], **changes: Any) -> Plan | list[FieldError]:
    if family:
        write_family(folder / "teacher", family)
    document = {
        "name": "small",
        "teacher": {"model": f"local-dir:{folder}/teacher"},
        "data": {"train": {"shards": write_shards(folder / "data", pairs=24), "caption_key": "json.captions"}},
        "stages": [{"name": f"s{i}", "train": {"steps": 3}, **stage} for i, stage in enumerate(stages)],
        "objective": {"affinity": 1, "feature_mimicry": 1},
        "batch_size": 8, **changes,
    }  # fmt: skip
    return make_plan(JobSpec.model_validate(document))


def errors_of(found: Plan | list[FieldError]) -> dict[str, str]:
    assert isinstance(found, list), found
    return {error.pointer: error.message for error in found}


@pytest.mark.parametrize("family", SIGLIP)
@pytest.mark.parametrize("select", ["leading", "importance"])
def test_a_student_inherits_towers_and_tokens_of_siglip(tmp_path: Path, family: str, select: str) -> None:
    plan = planned(tmp_path, family, {"inherit": "manual", "select": select, "student": SMALL}, {"student": SMALL})

    assert isinstance(plan, Plan), plan
    assert plan.teacher is not None
    for stage in plan.stages:
        layout = stage.student.layout
        assert isinstance(layout, Layout)
        assert layout.is_siglip
        assert (layout.vocab_size, layout.context_length) == (64, 16)
        assert (layout.image.width, layout.text.width) == (32, 16)
        assert stage.student.macs < plan.teacher.macs
    assert not any("tokenizer" in warning for warning in plan.warnings)
    resolved = plan.spec.stages[0].student
    assert resolved is not None
    assert resolved.image is not None
    assert resolved.image.patch_size == 16


def test_an_automatic_student_of_siglip_is_estimated(tmp_path: Path) -> None:
    plan = planned(tmp_path, "SigLIP", {"inherit": "auto", "prune": {"target_sparsity": 0.5}})

    assert isinstance(plan, Plan), plan
    [stage] = plan.stages
    assert stage.student.estimated
    assert isinstance(stage.student.layout, Layout)
    assert stage.student.layout.is_siglip


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SIGLIP])
def test_no_other_family_is_inherited_from_and_the_recipe_of_the_error_works(tmp_path: Path, family: str) -> None:
    [(pointer, message)] = errors_of(planned(tmp_path, family, {"inherit": "manual", "student": SMALL})).items()

    assert pointer == "/stages/0/inherit"
    assert ("not from a CLIP with other settings" if family == "transformers CLIP" else "not from a model like") in message
    assert "use inherit: none, a student with all sizes (or a preset)" in message
    assert "objective: {feature_mimicry: 1, affinity: 1}" in message
    assert isinstance(planned(tmp_path, family, RECIPE), Plan)


@pytest.mark.parametrize(
    ("student", "pointer", "message"),
    [
        ({"preset": "TinyCLIP-ViT-8M-16-Text-3M"}, "/stages/0/student/preset", "cannot inherit from each other"),
        ({"text": {"context_length": 8}}, "/stages/0/student/text/context_length", "needs the 16 tokens"),
        ({"text": {"vocab_size": 40}}, "/stages/0/student/text/vocab_size", "less than the 64 tokens of the teacher's tokenizer"),
        ({"image": {"width": 128}}, "/stages/0/student/image/width", "more than the 64"),
    ],
)
def test_a_student_that_does_not_fit_siglip_is_refused(
    tmp_path: Path, student: dict[str, Any], pointer: str, message: str
) -> None:
    found = errors_of(planned(tmp_path, "SigLIP", {"inherit": "manual", "student": student}))

    assert message in found[pointer]


def test_random_weights_after_towers_like_siglips_are_refused(tmp_path: Path) -> None:
    found = errors_of(planned(tmp_path, "SigLIP", {"inherit": "manual", "student": SMALL}, RECIPE))

    assert "train it in a job of its own" in found["/stages/1/inherit"]


def test_random_weights_take_sizes_but_neither_towers_nor_tokens_of_a_teacher_like_siglip(tmp_path: Path) -> None:
    layout = siglip_layout()
    (tmp_path / "teacher").mkdir()
    files = model_files(layout, save(random_clip(layout).state_dict()), OPENAI_MEAN, OPENAI_STD, None, word_tokenizer())
    for name, content in files.items():
        (tmp_path / "teacher" / name).write_bytes(content)

    plan = planned(tmp_path, "", {"inherit": "none", "student": {"image": {"layers": 1}}})

    assert isinstance(plan, Plan), plan
    student = plan.stages[0].student.layout
    assert isinstance(student, Layout)
    assert not student.is_siglip
    assert (student.image.width, student.vocab_size) == (layout.image.width, 49408)


def test_only_clips_vocabulary_is_reduced(tmp_path: Path) -> None:
    stage = {"inherit": "manual", "student": SMALL}

    found = errors_of(planned(tmp_path, "SigLIP", stage, vocabulary="reduced"))

    assert "only the 49408 tokens" in found["/vocabulary"].replace(",", "")
