"""Manual inheritance against the reference's index maps, and the students that it refuses."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tinyclip_workers.inheritance.leading import ImpossibleInheritance, inherit_leading, source_block
from torch import Tensor

from tests.workers.layouts import Config, layout_of, open_clip_model
from tests.workers.parity import Arrays, document

CASES: dict[str, Any] = document("inherit.json")


def clip(image: dict[str, Any], width: int, layers: int) -> Config:
    text = {"context_length": 16, "vocab_size": 100, "width": width, "heads": width // 64, "layers": layers}
    return {"embed_dim": 64, "vision_cfg": {"image_size": 32, "head_width": 64, **image}, "text_cfg": text}


VIT = {
    "teacher": clip({"layers": 6, "width": 128, "patch_size": 8}, 128, 6),
    "student": clip({"layers": 4, "width": 64, "patch_size": 8}, 64, 3),
}
RESNET = {"teacher": clip({"layers": [2, 2, 3, 2], "width": 16}, 128, 6)}
"""Configurations of our own: refusals do not depend on the fixtures."""


def teacher_state(config: Config) -> dict[str, Tensor]:
    """Return a state dict in which all entries of all tensors differ."""
    state = open_clip_model(config).state_dict()
    first = 0
    for name, tensor in state.items():
        state[name] = torch.arange(first, first + tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
        first += tensor.numel()
    return state


def student_state(config: Config) -> dict[str, Tensor]:
    return {name: torch.full_like(t, -1.0, dtype=torch.float64) for name, t in open_clip_model(config).state_dict().items()}


def expected(case: str, teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    axes = Arrays("inherit.npz", f"{case}/")
    state: dict[str, Tensor] = {}
    for name, source in CASES[case]["map"].items():
        lists = [axes[f"{name}|{axis}"].numpy() for axis in range(teacher[source].dim())]
        values = teacher[source].numpy()
        state[name] = torch.from_numpy(np.array(values[np.ix_(*lists)] if lists else values))
    return state


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["numeric", "alphabetical"])
def test_every_tensor_comes_from_the_entries_that_the_reference_takes(case: str, order: str) -> None:
    config = CASES[case]
    teacher = teacher_state(config["teacher"])
    if order == "alphabetical":
        teacher = dict(sorted(teacher.items()))

    student = student_state(config["student"])
    state = inherit_leading(student, teacher, layout_of(config["student"]), layout_of(config["teacher"]))

    wanted = expected(case, teacher)
    assert state.keys() == wanted.keys() | {"logit_scale"}
    for name, tensor in wanted.items():
        assert torch.equal(state[name], tensor), name
    assert state["logit_scale"] == -1.0


def test_the_student_loads_what_it_inherits_and_shares_no_memory_with_the_teacher() -> None:
    config = VIT
    teacher, student = open_clip_model(config["teacher"]).half(), open_clip_model(config["student"])

    state = inherit_leading(student, teacher.state_dict(), layout_of(config["student"]), layout_of(config["teacher"]))
    student.load_state_dict(state, strict=True)
    before = student.visual.proj.detach().clone()
    with torch.no_grad():
        teacher.visual.proj.zero_()

    assert state["visual.proj"].dtype == torch.float32
    assert torch.equal(student.visual.proj, before)


@pytest.mark.parametrize(
    ("blocks", "teacher_blocks", "sources"),
    [(9, 12, [*range(9)]), (6, 12, [0, 2, 4, 6, 8, 10]), (6, 9, [*range(6)]), (10, 12, [*range(10)]), (3, 12, [0, 4, 8])],
)
def test_blocks_are_evenly_spaced(blocks: int, teacher_blocks: int, sources: list[int]) -> None:
    assert [source_block(block, blocks, teacher_blocks) for block in range(blocks)] == sources




@pytest.mark.parametrize(
    ("tower", "setting", "field"),
    [
        ("vision_cfg", "layers", "image.layers"),
        ("vision_cfg", "width", "image.width"),
        ("text_cfg", "layers", "text.layers"),
        ("text_cfg", "width", "text.width"),
        ("text_cfg", "context_length", "text.context_length"),
        ("text_cfg", "vocab_size", "text.vocab_size"),
    ],
)
def test_a_deeper_or_wider_student_is_refused_with_the_field_and_the_sizes(tower: str, setting: str, field: str) -> None:
    student = copy.deepcopy(VIT["teacher"])
    size = student[tower][setting]
    student[tower][setting] = size * 2

    with pytest.raises(ImpossibleInheritance, match=rf"{field}: {size * 2} is more than the {size} .*inherit: none") as refused:
        inherit_leading(student_state(student), {}, layout_of(student), layout_of(VIT["teacher"]))

    assert (refused.value.field, refused.value.value) == (field, size * 2)


def test_one_stage_of_a_resnet_that_is_too_deep_is_refused() -> None:
    student = copy.deepcopy(RESNET["teacher"])
    student["vision_cfg"]["layers"][2] += 1

    with pytest.raises(ImpossibleInheritance, match=r"image\.layers"):
        inherit_leading({}, {}, layout_of(student), layout_of(RESNET["teacher"]))


def test_a_vit_does_not_inherit_from_a_resnet() -> None:
    with pytest.raises(ImpossibleInheritance, match="vit cannot inherit from a resnet"):
        inherit_leading({}, {}, layout_of(VIT["student"]), layout_of(RESNET["teacher"]))


def test_a_wider_mlp_is_refused_with_the_block() -> None:
    layout = layout_of(VIT["teacher"])
    mlp = [*layout.text.mlp[:-1], layout.text.mlp[-1] + 1]
    student = layout.model_copy(update={"text": layout.text.model_copy(update={"mlp": mlp})})

    with pytest.raises(ImpossibleInheritance, match=rf"text\.mlp_ratio: block {len(mlp) - 1} has {mlp[-1]} MLP units"):
        inherit_leading({}, {}, student, layout)


def test_a_larger_axis_of_a_tensor_is_named() -> None:
    teacher = teacher_state(VIT["teacher"])
    student = student_state(VIT["student"])
    student["visual.proj"] = torch.zeros(len(teacher["visual.proj"]) + 1, 2, dtype=torch.float64)

    with pytest.raises(ImpossibleInheritance, match=r"visual\.proj: axis 0 has \d+ entries in the student and \d+ in the model"):
        inherit_leading(student, teacher, layout_of(VIT["student"]), layout_of(VIT["teacher"]))


def test_a_tensor_that_the_teacher_lacks_is_named() -> None:
    teacher = teacher_state(VIT["teacher"])
    del teacher["visual.ln_pre.weight"]

    with pytest.raises(ImpossibleInheritance, match=r"no tensor visual\.ln_pre\.weight"):
        inherit_leading(student_state(VIT["student"]), teacher, layout_of(VIT["student"]), layout_of(VIT["teacher"]))
