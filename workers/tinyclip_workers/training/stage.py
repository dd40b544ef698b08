"""A stage with every setting resolved, and the student that it starts with."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.layouts import AnyLayout, Architecture
from tinyclip.schemas.spec import Averaging, Objective, OptimizerSpec, PruneSpec, StageSpec, TrainLength
from torch import Tensor

from tinyclip_workers.inheritance.leading import inherit_leading, leading_blocks
from tinyclip_workers.inheritance.students import Calibration, inherit_by_importance, on_principal_axes
from tinyclip_workers.model.architecture import any_layout, build_clip, resolve_layout, with_logit_bias
from tinyclip_workers.model.layouts import VOCAB_SIZE, ImpossibleStudent
from tinyclip_workers.model.libraries.own_towers import own_layout
from tinyclip_workers.model.masks import Tower
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.training.pruning import with_fewer_blocks


@dataclass(frozen=True)
class Stage:
    """One stage of a job with every setting resolved."""

    index: int
    name: str
    inherit: str
    select: str
    layout: AnyLayout
    """Layout of the student at the start of the stage: in an automatic stage, that of its parent, with `prune.layers` blocks."""
    steps: int
    batch_size: int
    """Pairs per step of all workers together."""
    objective: Objective
    optimizer: OptimizerSpec
    parent: AnyLayout | None = None
    """Layout of the model that the student inherits from: the teacher or `inherit_from`, then the previous stage's student."""
    prune: PruneSpec | None = None
    original: Layout | None = None
    """In an automatic stage, the layout that its sparsity is relative to: where the first such stage in a row started."""
    averaging: Averaging | None = None

    @property
    def embedding_sizes(self) -> list[int]:
        """Nested sizes of the student's embeddings, the last of which is all; or none."""
        return self.objective.nested_sizes(self.layout.embed_dim)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, to be sent to a worker."""
        models = {name: value.model_dump(mode="json") for name, value in vars(self).items() if isinstance(value, BaseModel)}
        return {**asdict(self), **models}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Stage":
        kinds: dict[str, Callable[[Any], BaseModel]] = {
            "layout": any_layout, "objective": Objective.model_validate, "optimizer": OptimizerSpec.model_validate,
            "parent": any_layout, "prune": PruneSpec.model_validate, "original": Layout.model_validate,
            "averaging": Averaging.model_validate,
        }  # fmt: skip
        models = {name: read(data[name]) for name, read in kinds.items() if data[name] is not None}
        return cls(**{**data, **models})


def resolve_stage(
    spec: JobSpec,
    index: int,
    parent: AnyLayout | None,
    before: Stage | None,
    samples_per_epoch: int,
    vocab_size: int | None = None,
) -> Stage:
    """Resolve a stage whose parent is known: settings that it omits come from the spec, sizes from the parent.

    `before` is the previous stage, `None` for the first. `vocab_size`: of the tokenizer that the job gives its students. Raises
    ImpossibleStudent.
    """
    stage = spec.stages[index]
    if stage.inherit != "none" and parent is not None:
        parent = inheritable_layout(parent)
    if isinstance(parent, Layout) and vocab_size is not None:  # it is given this vocabulary before anything is inherited
        parent = with_vocab_size(parent, vocab_size)
    batch_size, optimizer = stage.batch_size or spec.batch_size, stage.optimizer or spec.optimizer
    objective, original = stage.objective or spec.objective, None
    layout = _student_layout(spec, stage, parent, vocab_size)
    is_continued = stage.inherit_from is not None and stage.prune is None and layout == parent
    if stage.prune is not None:
        original = before.original if before is not None and before.original is not None else inheritable_layout(parent)
    return Stage(
        index=index,
        name=stage.name,
        inherit=stage.inherit,
        select="leading" if is_continued else stage.select,  # all of the parent, as it is
        layout=with_logit_bias(layout) if objective.uses_logit_bias() else layout,
        steps=steps_of(stage.train, batch_size, samples_per_epoch),
        batch_size=batch_size,
        objective=objective,
        optimizer=optimizer,
        parent=parent,
        prune=stage.prune,
        original=original,
        averaging=stage.averaging or spec.averaging,
    )


def with_vocab_size(layout: Layout, size: int) -> Layout:
    """Return the layout of a model with that many tokens."""
    return layout.model_copy(update={"text": layout.text.model_copy(update={"vocab_size": size})})


def _student_layout(spec: JobSpec, stage: StageSpec, parent: AnyLayout | None, vocab_size: int | None) -> AnyLayout:
    """Return the layout of the student at the start of a stage, with the vocabulary of the job's tokenizer if it has one."""
    layout = _first_layout(stage, sizes_to_take(spec, stage, parent))
    if vocab_size is None:
        return layout
    if not isinstance(layout, Layout):
        message = f"a {layout.family} has the tokenizer of its own architecture; omit tokenizer, or use a plain CLIP as student"
        raise ImpossibleStudent("tokenizer", None, message)
    return with_vocab_size(layout, vocab_size)


def sizes_to_take(spec: JobSpec, stage: StageSpec, parent: AnyLayout | None) -> AnyLayout | None:
    """Return the layout that a student takes the sizes from that its spec omits.

    Random weights take sizes only: their towers read as CLIP's do, and CLIP's tokens unless the job's students have others.
    """
    if stage.inherit != "none" or not isinstance(parent, Layout):
        return parent
    tokens = {} if spec.inherits_from_teacher else {"vocab_size": VOCAB_SIZE}
    image = parent.image.model_copy(update={"pool": None, "tanh_gelu": False})
    text = parent.text.model_copy(update={"bidirectional": False, "tanh_gelu": False, **tokens})
    return parent.model_copy(update={"image": image, "text": text})


def _first_layout(stage: StageSpec, parent: AnyLayout | None) -> AnyLayout:
    if stage.student is not None:
        return resolve_layout(stage.student, parent)
    if parent is None:
        raise ImpossibleStudent("inherit", stage.inherit, "there is no model to inherit from; add a teacher")
    layout = inheritable_layout(parent)
    return layout if stage.prune is None else with_fewer_blocks(layout, stage.prune.layers)


def inheritable_layout(parent: AnyLayout | None) -> Layout:
    """Return the layout of a model to inherit from. Raises ImpossibleStudent, with the recipe that works, if it has none."""
    if parent is not None and (found := own_layout(parent)) is not None:
        return found
    raise ImpossibleStudent("inherit", None, not_inheritable(parent))


def not_inheritable(parent: AnyLayout | None) -> str:
    """Return why no weights can be inherited from a model, and what to do instead."""
    family = f"model like {parent.family}" if isinstance(parent, Architecture) else "missing model"
    if isinstance(parent, Architecture) and parent.family == "CLIP" and parent.library == "transformers":
        family = "CLIP with other settings (the end of a text must be its largest token, the activation GELU or QuickGELU)"
    return (
        f"weights are inherited from ViTs and ResNets like CLIP's or SigLIP's, not from a {family}: use inherit: none, a student "
        "with all sizes (or a preset), and objective: {feature_mimicry: 1, affinity: 1}"
    )


def is_calibrated(stage: StageSpec) -> bool:
    """Return whether a stage cuts its student by calibration pairs."""
    if stage.inherit == "manual":
        return stage.select == "importance"
    return stage.prune is not None and (stage.prune.search != "joint" or stage.prune.layers is not None)


def steps_of(length: TrainLength, batch_size: int, samples_per_epoch: int) -> int:
    """Convert a length in steps, samples or epochs to optimizer steps; at least one."""
    if length.steps is not None:
        return length.steps
    samples = length.samples if length.samples is not None else (length.epochs or 0) * samples_per_epoch
    return max(1, math.ceil(samples / batch_size))


class Parent(NamedTuple):
    """The model that a student inherits from: the teacher in the first stage, then the previous stage's student."""

    weights: Mapping[str, Tensor]
    layout: Layout
    device: torch.device = torch.device("cpu")

    def model(self) -> Clip:
        """Return a copy as a model of our own in evaluation mode, on the device."""
        clip = Clip(self.layout).to(self.device).eval().requires_grad_(False)
        clip.load_state_dict({name: tensor for name, tensor in self.weights.items() if name != "attn_mask"})
        return clip


def build_student(
    stage: Stage,
    seed: int,
    parent: Parent | None,
    calibration: Callable[[], Calibration] | None = None,
    selected: dict[Tower, list[int]] | None = None,
) -> Model:
    """Build the student of a stage (METHOD sections 7 and 13).

    Its weights are random, from the seed, without a parent: with `inherit: none`, or if they are restored from a checkpoint. With
    `manual` they are the leading part of the parent's or selected by importance; with `auto` all of the parent's, for the search.
    `calibration` provides pairs and targets where they are needed. `selected` receives the numbers of the parent's blocks that
    `manual` takes, by tower. Raises ImpossibleInheritance.
    """
    torch.manual_seed(seed + stage.index)
    layout = stage.layout
    student: Model = Clip(layout) if stage.inherit == "auto" and isinstance(layout, Layout) else build_clip(layout)
    if parent is None:
        return student
    layout = inheritable_layout(layout)
    if stage.inherit == "manual" and stage.select == "leading":
        student.load_state_dict(inherit_leading(student, parent.weights, layout, parent.layout))
        if selected is not None:
            selected |= leading_blocks(layout, parent.layout)
    elif stage.prune is None:
        assert calibration is not None, "inheritance by importance needs calibration pairs"
        student.load_state_dict(inherit_by_importance(layout, parent.model(), calibration(), selected))
    else:
        start = _start_of_search(stage.prune, layout, parent, calibration, selected)
        student.load_state_dict({**_bias_of(student), **start})
    with torch.no_grad():  # in the published scripts it is fixed, so that it makes no difference there
        student.logit_scale.copy_(parent.weights["logit_scale"])
        if "logit_bias" in parent.weights and student.logit_bias is not None:
            student.logit_bias.copy_(parent.weights["logit_bias"])
    return student


def _start_of_search(
    prune: PruneSpec,
    layout: Layout,
    parent: Parent,
    calibration: Callable[[], Calibration] | None,
    selected: dict[Tower, list[int]] | None,
) -> Mapping[str, Tensor]:
    """Return the parent's weights; of as many blocks as the layout has, and on principal axes unless weights are trained too."""
    fewer = (layout.image.layers, layout.text.layers) != (parent.layout.image.layers, parent.layout.text.layers)
    if prune.search == "joint" and not fewer:
        return parent.weights
    assert calibration is not None, "a search on principal axes needs calibration pairs"
    found, model = calibration(), parent.model()
    if fewer:
        shallow = Clip(layout).to(parent.device).eval().requires_grad_(False)
        shallow.load_state_dict(inherit_by_importance(layout, model, found, selected))
        model = shallow
    return model.state_dict() if prune.search == "joint" else on_principal_axes(model, found.pairs, prune.towers)


def _bias_of(student: Model) -> dict[str, Tensor]:
    """Return the bias that a student starts with, for a parent that has none."""
    return {} if student.logit_bias is None else {"logit_bias": student.logit_bias.detach().clone()}
