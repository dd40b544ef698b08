"""The student as its stage begins: built for the stage's layout, with the weights that it inherits."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.model.architecture import build_any
from tinyclip_workers.model.inherit import inherit_manual
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.training.stage import Stage


class Parent(NamedTuple):
    """What a student inherits from: the teacher in the first stage, then the student of the stage before."""

    weights: Mapping[str, Tensor]
    layout: Layout


def begin_student(stage: Stage, seed: int, parent: Parent | None) -> Model:
    """A model of `stage.layout`: random weights drawn from the seed where nothing is inherited, the leading part of the
    parent's for `manual`, all of them for `auto`, where masks choose (METHOD section 7).

    Raises ImpossibleInheritance.
    """
    torch.manual_seed(seed + stage.index)
    student: Model = Clip(stage.layout) if stage.inherit == "auto" else build_any(stage.layout)
    if stage.inherit != "none":
        assert parent is not None, "the spec's schema asks for a teacher here"
        weights = parent.weights
        if stage.inherit == "manual":
            weights = inherit_manual(student, weights, stage.layout, parent.layout)
        student.load_state_dict(weights)
    return student
