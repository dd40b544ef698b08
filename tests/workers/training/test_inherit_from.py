"""Jobs whose first stage inherits from an earlier student while the teacher teaches, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec, Layout, Plan
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.specs import make_plan

from tests.workers.attempts import Job
from tests.workers.auto_stages import TEACHER

pytestmark = pytest.mark.usefixtures("without_a_cluster")
PARAMS = summarize(TEACHER).image_params + summarize(TEACHER).text_params
STAGES: list[dict[str, Any]] = [
    {
        "name": "cut", "inherit": "auto", "train": {"steps": 4},
        "prune": {"target": {"params": PARAMS * 2 // 3}, "layers": {"image": 1}},
    },
]  # fmt: skip


def from_version(job: Job, **stage: Any) -> dict[str, Any]:
    return {"name": "on", "train": {"steps": 2}, "inherit_from": f"local-dir:{job.store.uri('models/shapes/1')}", **stage}


def params_of(layout: Layout) -> int:
    summary = summarize(layout)
    return summary.image_params + summary.text_params


def test_a_job_that_keeps_some_blocks_records_them(uninterrupted: Job) -> None:
    version = uninterrupted.version()

    assert isinstance(version.layout, Layout)
    assert version.layout.image.layers == [1]
    assert params_of(version.layout) <= PARAMS * 2 // 3
    assert version.inherited_from == TEACHER
    assert version.inherited_blocks is not None
    assert version.inherited_blocks.image in ([0], [1])


def test_an_earlier_student_is_trained_on_as_it_is(
    tmp_path: Path, spec_of_stages: Callable[..., JobSpec], uninterrupted: Job
) -> None:
    stage = from_version(uninterrupted, student={}, optimizer={"lr": 1e-12, "weight_decay": 0}, averaging={"decay": 0})
    plan = make_plan(spec_of_stages(stage))
    assert isinstance(plan, Plan), plan
    assert not [warning for warning in plan.warnings if "no smaller" in warning]
    job = Job(tmp_path, plan.spec)

    assert job.attempt()

    found, wanted = job.version(), uninterrupted.weights()
    assert plan.stages[0].student.layout == found.layout == uninterrupted.version().layout
    assert found.inherited_from == found.layout
    assert found.lineage["inherited"]["sha256"]
    assert found.lineage["teacher"]["name"] != found.lineage["inherited"]["name"]
    own = job.weights()
    assert all(torch.allclose(own[name], tensor, atol=1e-6) for name, tensor in wanted.items() if name != "logit_scale")


def test_an_earlier_student_is_cut_further(tmp_path: Path, spec_of_stages: Callable[..., JobSpec], uninterrupted: Job) -> None:
    stage = from_version(uninterrupted, inherit="auto", prune={"target": {"params": PARAMS // 2}})
    plan = make_plan(spec_of_stages(stage))
    assert isinstance(plan, Plan), plan
    job = Job(tmp_path, plan.spec)

    assert job.attempt()

    layout = job.version().layout
    assert isinstance(layout, Layout)
    assert 0.9 * PARAMS / 2 < params_of(layout) <= PARAMS // 2


def test_a_model_that_is_not_there_is_an_error_of_the_plan(spec_of_stages: Callable[..., JobSpec]) -> None:
    errors = make_plan(spec_of_stages({"name": "on", "train": {"steps": 2}, "student": {}, "inherit_from": "local-dir:/nowhere"}))

    assert isinstance(errors, list)
    assert [(error.pointer, error.value) for error in errors] == [("/stages/0/inherit_from", "local-dir:/nowhere")]
