"""Plans of jobs that decide by the agreement with the teacher."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip.schemas import FieldError, JobSpec, Plan
from tinyclip_workers.plan.specs import make_plan

from tests.workers.plan_specs import Document, spec, write_data

AVERAGED: Document = {"averaging": {"decay": 0.9}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("plan"))


def planned(document: Document) -> Plan | list[FieldError]:
    return make_plan(JobSpec.model_validate(document))


def without_teacher(document: Document) -> Document:
    layout = {"embed_dim": 16, "image": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32}}
    text = {"layers": 1, "width": 16, "heads": 2, "context_length": 12, "vocab_size": 49408}
    stage = {"name": "whole", "inherit": "none", "student": {**layout, "text": text}, "train": {"steps": 30}}
    return {**document, "teacher": None, "objective": {"contrastive": 1}, "stages": [stage]}


def test_averaging_is_part_of_the_resolved_spec(folder: Path) -> None:
    plan = planned(spec(folder) | AVERAGED)

    assert isinstance(plan, Plan)
    assert plan.spec.averaging is not None
    assert (plan.spec.averaging.decay, plan.warnings) == (0.9, [])


def test_the_steps_of_a_test_of_rates_are_planned(folder: Path) -> None:
    document = spec(folder)
    document["stages"][1] |= {"optimizer": {"lr": "auto"}, "select": "leading"}

    plan = planned(document)

    assert isinstance(plan, Plan)
    assert plan.teacher is not None
    deep, slim = plan.stages
    assert (deep.lr, slim.lr, plan.warnings) == (3e-4, "auto", [])
    steps = 30 + 5 * 5
    assert slim.steps == 30
    assert slim.device_hours == pytest.approx(2 * 4 * steps * (3 * slim.student.macs + plan.teacher.macs) / 60e9 / 3600)


def test_a_frozen_search_needs_no_number(folder: Path) -> None:
    prune = {"target_sparsity": 0.3, "prune_step": 400, "sparsity_warmup": 10, "towers": ["text"]}
    stages = [{"name": "a", "inherit": "auto", "prune": prune, "train": {"steps": 500}}]

    plan = planned({**spec(folder), "stages": stages, "optimizer": {"lr": "auto"}})

    assert isinstance(plan, Plan)
    assert (plan.stages[0].search, plan.stages[0].lr) == ("frozen", "auto")


def test_a_joint_search_needs_a_number(folder: Path) -> None:
    prune = {"search": "joint", "target_sparsity": 0.3, "prune_step": 400, "sparsity_warmup": 10, "towers": ["text"]}
    stages = [{"name": name, "inherit": "auto", "prune": prune, "train": {"steps": 500}} for name in ("a", "b")]
    stages[1]["prune"] = {**prune, "target_sparsity": 0.5}

    errors = planned({**spec(folder), "stages": stages, "optimizer": {"lr": "auto"}})

    assert not isinstance(errors, Plan)
    assert [(error.pointer, error.value) for error in errors] == [("/optimizer/lr", "auto")]
    assert errors[0].message.endswith("give a number, or use search: frozen")


def test_without_a_teacher_there_is_nothing_to_decide_by(folder: Path) -> None:
    errors = planned(without_teacher(spec(folder) | AVERAGED | {"optimizer": {"lr": "auto"}}))

    assert not isinstance(errors, Plan)
    message = "is decided by the agreement with a teacher, and the spec has none; remove it or add a teacher"
    assert [(e.pointer, e.value) for e in errors] == [("/averaging", {"decay": 0.9}), ("/optimizer/lr", "auto")]
    assert {e.message for e in errors} == {message}


def test_without_a_holdout_it_is_decided_on_trained_pairs(folder: Path) -> None:
    document: dict[str, Any] = spec(folder) | AVERAGED
    document["data"]["train"]["holdout"] = 0
    document["evaluation"]["tasks"] = []

    plan = planned(document)

    assert isinstance(plan, Plan)
    assert plan.warnings == [
        "/averaging: decided on pairs that are trained on; set data.train.holdout, to 0.02 for example"
    ]
