"""Plans of automatic stages: estimates of their students, and the stages after them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec, Layout, Plan
from tinyclip.schemas.spec import PruneSpec
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.masked import removed_share
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.prune import estimated_layout, steps_to_reach
from tinyclip_workers.plan.specs import make_plan

from tests.workers.auto_stages import BATCH, PRUNE_STEP, STEPS, TEACHER, auto, spec_of
from tests.workers.models import write_folder
from tests.workers.shapes_data import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_shards(folder)
    torch.manual_seed(0)
    write_folder(folder / "teacher", build_model(TEACHER), TEACHER)
    return folder


def plan_of(folder: Path, *stages: dict[str, Any]) -> Plan:
    spec = spec_of(f"{folder}/train-*.tar", *stages, teacher={"model": f"local-dir:{folder}/teacher"})
    plan = make_plan(JobSpec.model_validate(spec.model_dump()))
    assert isinstance(plan, Plan), plan
    return plan


def test_a_chain_of_automatic_stages_is_planned_with_estimates(folder: Path) -> None:
    plan = plan_of(folder, auto(0.25, "a"), auto(0.5, "b", start_sparsity=0.25), auto(0.75, "c", start_sparsity=0.5))

    shares = [removed_share(TEACHER, stage.student.layout, ["image", "text"]) for stage in plan.stages]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    assert all(stage.student.estimated for stage in plan.stages)
    macs = [summarize(TEACHER).macs, *(stage.student.macs for stage in plan.stages)]
    assert macs == sorted(macs, reverse=True)
    first, teacher = plan.stages[0], summarize(TEACHER).macs
    under_masks = PRUNE_STEP * teacher  # the whole teacher is trained until the prune step
    flops = 2 * BATCH * (3 * (under_masks + (STEPS - PRUNE_STEP) * first.student.macs) + STEPS * teacher)
    assert first.device_hours == pytest.approx(flops / 60e9 / 3600)
    assert not [warning for warning in plan.warnings if "auto" in warning]


def test_a_plan_resolves_to_itself(folder: Path) -> None:
    small = {"image": {"layers": 1, "width": 8, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
    plan = plan_of(
        folder,
        auto(0.25, "a"),
        {"name": "same", "student": {"text": {}}, "train": {"steps": 2}},
        {"name": "small", "student": small, "train": {"steps": 2}},
    )

    again = make_plan(plan.spec)

    assert isinstance(again, Plan)
    assert again.spec == plan.spec
    assert [stage.student.estimated for stage in plan.stages] == [True, True, True]
    assert plan.spec.stages[1].student == JobSpec.model_validate(plan.spec.model_dump()).stages[1].student


@pytest.mark.parametrize("first", [[], [{"name": "narrow", "student": {"image": {"width": 24}}, "train": {"steps": 2}}]])
def test_every_stage_of_a_mixed_chain_is_planned_with_its_own_length_and_batch(folder: Path, first: list[dict[str, Any]]) -> None:
    """Auto, then manual; and manual before them."""
    small = {"image": {"layers": 1, "width": 8, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}

    plan = plan_of(folder, *first, auto(0.25), {"name": "cut", "student": small, "train": {"samples": 96}, "batch_size": 16})

    assert [stage.inherit for stage in plan.stages] == [*["manual"] * len(first), "auto", "manual"]
    assert [stage.steps for stage in plan.stages] == [*[2] * len(first), STEPS, 6]
    assert [stage.samples for stage in plan.stages] == [*[2 * BATCH] * len(first), STEPS * BATCH, 96]
    parent = plan.stages[-3].student.layout if first else TEACHER
    assert removed_share(parent, plan.stages[-2].student.layout, ["image", "text"]) == pytest.approx(0.25, abs=0.05)
    assert plan.stages[-1].student.layout.image.width == 8


def test_a_student_that_may_not_fit_an_estimate_is_a_warning(folder: Path) -> None:
    wide = {"image": {"width": 32, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}

    plan = plan_of(folder, auto(0.25), {"name": "wide", "student": wide, "train": {"steps": 2}})

    assert any("/stages/1/student/image/width may not fit" in warning for warning in plan.warnings)


def test_a_search_too_short_for_its_masks_is_a_warning(folder: Path) -> None:
    plan = plan_of(folder, {**auto(0.5), "optimizer": {"mask_lr": 0.02}})

    assert any("masks that move by optimizer.mask_lr 0.02 a step need about" in warning for warning in plan.warnings)
    assert 150 < steps_to_reach(0.25, 0.02) < steps_to_reach(0.75, 0.02) < 400


def test_the_published_sizes_are_estimated() -> None:
    """The paper's automatic students of ViT-B-32 have 63M+31M, 45M+18M and 22M+10M parameters."""
    teacher = PRESETS["ViT-B-32"]
    for target, millions in ((0.25, 94), (0.5, 63), (0.75, 32)):
        layout = estimated_layout(PruneSpec(target_sparsity=target, prune_step=1), teacher, teacher)
        summary = summarize(layout)
        assert (summary.image_params + summary.text_params_without_embedding) / 1e6 == pytest.approx(millions, rel=0.06)


class TestCostTargets:
    """Targets in units of cost, of a teacher with 1.7 million parameters, most of them token embeddings."""

    def test_the_student_is_estimated_at_its_target(self, folder: Path) -> None:
        whole = summarize(TEACHER)
        params = whole.image_params + whole.text_params
        for target, found in (({"params": params // 2}, params), ({"macs": whole.macs // 3}, whole.macs)):
            plan = plan_of(folder, costly(target=target))
            student = plan.stages[0].student
            cost = student.macs if "macs" in target else student.image_params + student.text_params
            [limit] = target.values()
            assert student.estimated
            assert 0.8 * limit < cost <= limit < found

    def test_a_plan_resolves_to_itself(self, folder: Path) -> None:
        prune = {"target": {"latency_ms": 0.8, "engine": "openvino", "coefficients": {"blocks": 0.5}}, "layers": {"image": 1}}
        plan = plan_of(folder, costly(**prune))

        again = make_plan(plan.spec)

        assert isinstance(again, Plan)
        assert again.spec == plan.spec
        assert plan.spec.stages[0].prune is not None
        assert plan.spec.stages[0].prune.towers == ["image"]
        layout = plan.stages[0].student.layout
        assert isinstance(layout, Layout)
        assert layout.image.layers == [1]

    @pytest.mark.parametrize(
        ("prune", "pointer", "message"),
        [
            ({"target": {"params": 1000}}, "/target/params", "cannot be met: the smallest is 50,238, of towers"),
            ({"target": {"macs": 10**12}}, "/target/macs", "is no less than the"),
            ({"target": {"latency_ms": 3}}, "/target/coefficients", "no coefficients predict this latency"),
            ({"target": {"latency_ms": 3, "coefficients": {"x": 1}}}, "/target/coefficients", "no terms x; it has calls"),
            ({"target_sparsity": 0.5, "layers": {"image": 3}}, "/layers/image", "give at most 2"),
        ],
    )
    def test_what_cannot_be_met_is_an_error(self, folder: Path, prune: dict[str, Any], pointer: str, message: str) -> None:
        spec = spec_of(f"{folder}/train-*.tar", costly(**prune), teacher={"model": f"local-dir:{folder}/teacher"})

        errors = make_plan(spec)

        assert isinstance(errors, list)
        assert [error.pointer for error in errors] == [f"/stages/0/prune{pointer}"]
        assert message in errors[0].message

    def test_blocks_of_a_student_that_was_pruned_are_not_selected(self, folder: Path) -> None:
        stages = auto(0.25, "a"), costly(target_sparsity=0.5, layers={"image": 1})
        errors = make_plan(spec_of(f"{folder}/train-*.tar", *stages, teacher={"model": f"local-dir:{folder}/teacher"}))

        assert isinstance(errors, list)
        assert [error.pointer for error in errors] == ["/stages/1/prune/layers"]

    def test_fewer_blocks_are_estimated_with_a_sparsity_of_the_whole_model(self, folder: Path) -> None:
        plan = plan_of(folder, auto(0.6, layers={"image": 1}))

        layout = plan.stages[0].student.layout
        assert isinstance(layout, Layout)
        assert layout.image.layers == [1]
        assert removed_share(TEACHER, layout, ["image", "text"]) == pytest.approx(0.6, abs=0.05)


def costly(**prune: Any) -> dict[str, Any]:
    return {"name": "costly", "inherit": "auto", "prune": prune, "train": {"steps": STEPS}}
