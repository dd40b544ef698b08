"""The target of an automatic stage, and the model that the first stage inherits from: what a spec may have."""

from typing import Any

import pytest
from pydantic import ValidationError
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import PruneSpec


def spec_of(*stages: dict[str, Any], **changes: Any) -> JobSpec:
    named = [{"name": f"s{number}", "train": {"steps": 3}, **stage} for number, stage in enumerate(stages)]
    document = {"name": "x", "teacher": {"model": "local-dir:/t"}, "data": {"train": {"shards": "a.tar"}}, "stages": named}
    return JobSpec.model_validate({**document, **changes})


@pytest.mark.parametrize(
    "target",
    [{"latency_ms": 4, "engine": "openvino-int8"}, {"bytes": 10**7, "weights": "int8"}, {"params": 10**6}, {"macs": 10**8}],
)
def test_a_target_of_each_kind_survives_the_wire(target: dict[str, Any]) -> None:
    prune = PruneSpec.model_validate({"target": target, "layers": {"image": 4}})

    assert PruneSpec.model_validate_json(prune.model_dump_json()) == prune
    assert PruneSpec.model_validate(prune.model_dump(exclude_defaults=True)) == prune
    assert prune.target is not None
    assert prune.target.kind == next(iter(target))


def test_a_latency_implies_its_tower() -> None:
    assert PruneSpec.model_validate({"target": {"latency_ms": 4}}).towers == ["image"]
    assert PruneSpec.model_validate({"target": {"latency_ms": 4, "tower": "text"}}).towers == ["text"]
    assert PruneSpec.model_validate({"target": {"params": 4}}).towers == ["image", "text"]


def test_a_spec_without_a_target_is_short_as_before() -> None:
    prune = {"target_sparsity": 0.5, "prune_step": 9, "search": "frozen"}

    assert PruneSpec.model_validate(prune).model_dump(exclude_defaults=True) == prune


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({}, "give either target_sparsity or target"),
        ({"target_sparsity": 0.5, "target": {"params": 5}}, "give either target_sparsity or target"),
        ({"target": {}}, "give exactly one of latency_ms, bytes, params, macs, not none"),
        ({"target": {"params": 5, "macs": 5}}, "not params and macs"),
        ({"target": {"params": 5, "coefficients": {"blocks": 1}}}, "coefficients belong to latency_ms, not to params"),
        ({"target": {"latency_ms": 5, "coefficients": {"blocks": -1}}}, "greater than or equal to 0"),
        ({"target": {"latency_ms": 5}, "towers": ["text"]}, r"give towers: \[image\]"),
        ({"target": {"params": 5}, "start_sparsity": 0.1}, "belong to target_sparsity"),
        ({"target": {"params": 5}, "joint": False}, "belong to target_sparsity"),
        ({"target": {"params": 5}, "granularity": "paper", "prune_step": 3}, "belong to target_sparsity"),
        ({"target_sparsity": 0.5, "layers": {}}, "give image, text or both"),
    ],
)
def test_an_impossible_target_is_refused(prune: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruneSpec.model_validate(prune)


class TestInheritFrom:
    def test_a_student_without_a_teacher_continues(self) -> None:
        stage = {"inherit_from": "registry:small@3", "student": {}, "objective": {"contrastive": 1}}

        assert spec_of(stage, teacher=None).inherits_from == "registry:small@3"

    @pytest.mark.parametrize(
        ("stages", "message"),
        [
            ([{"student": {}}, {"student": {}, "inherit_from": "registry:small@3"}], "stages.1 inherits from the stage before"),
            ([{"student": {}, "inherit": "none", "inherit_from": "registry:small@3"}], "inherit: none has random weights"),
            ([{"student": {}, "inherit_from": "ViT-B-32"}], "inherit_from is registry:NAME@VERSION"),
        ],
    )
    def test_other_places_are_refused(self, stages: list[dict[str, Any]], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            spec_of(*stages)
