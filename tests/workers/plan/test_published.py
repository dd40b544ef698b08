"""The paper's own runs, planned: sizes, steps and device-hours, with the teacher looked up and nothing downloaded."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip.schemas import JobSpec, Plan
from tinyclip.specfile import load_spec
from tinyclip_workers.model.files import sources
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.specs import make_plan

from tests.workers.shards import color_samples, write_shard

PUBLISHED = Path(__file__).parents[3] / "examples" / "published"

MANUAL = {
    "manual-vit-b32": ("ViT-B-32", ["TinyCLIP-ViT-61M-32-Text-29M", "TinyCLIP-ViT-40M-32-Text-19M"], 400_000_000 * 6),
    "manual-resnet": ("RN50", ["TinyCLIP-ResNet-30M-Text-29M", "TinyCLIP-ResNet-19M-Text-19M"], 400_000_000 * 6),
    "manual-vit-39m-16": ("ViT-B-16", ["TinyCLIP-ViT-39M-16-Text-19M"], 15_000_000 * 25),
    "manual-vit-8m-16": ("ViT-B-16", ["TinyCLIP-ViT-8M-16-Text-3M"], 15_000_000 * 25),
}
"""Teacher, students and pairs of each stage."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """In the place of 400 million pairs."""
    samples = [{**sample, "jpg": sample["png"]} for sample in color_samples(16)]
    return write_shard(tmp_path_factory.mktemp("published") / "0.tar", samples)


@pytest.fixture(autouse=True)
def asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that has every file; what is asked of it. Downloads are errors."""
    asked: list[str] = []

    def no_download(*_: Any, **__: Any) -> Any:
        raise AssertionError("a plan downloads nothing")

    monkeypatch.setattr(sources, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(sources, "get_hf_file_metadata", lambda url, **_: asked.append(url))
    monkeypatch.setattr(sources, "download_pretrained", no_download)
    monkeypatch.setattr(sources, "download_pretrained_from_hf", no_download)
    return asked


def plan_of(name: str, shards: str) -> Plan:
    spec = load_spec(PUBLISHED / f"{name}.yaml", [f"data.train.shards={shards}"])
    plan = make_plan(JobSpec.model_validate(spec))
    assert isinstance(plan, Plan), plan
    return plan


def test_every_published_spec_is_planned_here() -> None:
    assert {file.stem for file in PUBLISHED.glob("*.yaml")} == {*MANUAL, "auto-vit-b32"}


@pytest.mark.parametrize("name", MANUAL)
def test_a_manual_run_makes_the_published_students(name: str, shards: str, asked_of_the_hub: list[str]) -> None:
    teacher, students, pairs = MANUAL[name]

    plan = plan_of(name, shards)

    assert plan.teacher is not None
    assert plan.teacher.macs == summarize(PRESETS[teacher]).macs
    assert len(asked_of_the_hub) == 1
    for stage, student in zip(plan.stages, students, strict=True):
        wanted = summarize(PRESETS[student])
        assert (stage.student.image_params, stage.student.text_params) == (wanted.image_params, wanted.text_params)
        assert stage.student.layout.quick_gelu == plan.teacher.layout.quick_gelu
        assert stage.steps == -(-pairs // 32768)
        assert stage.device_hours == pytest.approx(hours(stage.samples, wanted.macs, plan.teacher.macs))
    assert plan.device_hours == pytest.approx(sum(stage.device_hours for stage in plan.stages))
    assert {warning[:30] for warning in plan.warnings} <= KNOWN_WARNINGS


def test_the_automatic_run_reaches_the_published_sizes(shards: str) -> None:
    plan = plan_of("auto-vit-b32", shards)

    millions = [(s.student.image_params + s.student.text_params_without_embedding) / 1e6 for s in plan.stages]
    assert millions == [pytest.approx(size, rel=0.06) for size in (63 + 31, 45 + 18, 22 + 10)]
    assert all(stage.student.estimated for stage in plan.stages)
    prunes = [stage.prune for stage in plan.spec.stages if stage.prune]
    assert [prune.start_sparsity for prune in prunes] == [0, 0.25, 0.5]
    assert [prune.target_sparsity for prune in prunes] == [0.25, 0.5, 0.75]
    assert [prune.prune_step for prune in prunes] == [3000, 5000, 8000]
    assert [stage.steps for stage in plan.stages] == [73243] * 3
    assert plan.device_hours == pytest.approx(sum(stage.device_hours for stage in plan.stages))
    assert plan.stages[0].device_hours > plan.stages[1].device_hours > plan.stages[2].device_hours > 0
    assert {warning[:30] for warning in plan.warnings} <= KNOWN_WARNINGS


def hours(pairs: int, student_macs: int, teacher_macs: int) -> float:
    """Of a GPU that does 1e14 operations a second: three passes of the student, one of the teacher, two operations a MAC."""
    return pairs * 2 * (3 * student_macs + teacher_macs) / 1e14 / 3600


KNOWN_WARNINGS = {
    warning[:30]
    for warning in (
        "data.train.samples is 400000000 pairs an epoch, the shards have 16",
        "data.train.samples is 15000000 pairs an epoch, the shards have 16",
        "resources.device is cuda, which this machine does not have: the job waits for a node with a GPU",
    )
}
"""Of the shards in the place of the real ones, and of a machine without a GPU."""
