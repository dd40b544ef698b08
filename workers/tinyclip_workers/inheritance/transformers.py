"""One transformer tower of a student: selected blocks, heads and MLP units of its parent, on the principal axes of its stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from torch import Tensor

from tinyclip_workers.inheritance.depth import blocks_to_keep
from tinyclip_workers.inheritance.principal_axes import change_basis, input_norm_ratio, principal_axes
from tinyclip_workers.inheritance.streams import Pairs, TransformerTower
from tinyclip_workers.model.fold import PREFIXES, State, fold
from tinyclip_workers.model.masked import full_mask
from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.towers import Clip


@dataclass(frozen=True)
class Cut:
    """The parts of its parent that a student's tower has inherited."""

    blocks: list[int]
    """Numbers of the parent's blocks."""
    axes_wd: Tensor | None
    """The map from the parent's residual stream to the student's; `None` for the same stream."""

    def to_student(self, stream: Tensor) -> Tensor:
        """Map the parent's residual stream (…, d) to the student's (…, w)."""
        return stream if self.axes_wd is None else stream @ self.axes_wd.to(stream).T


def cut_tower(
    parent: Clip, state: State, layout: Layout, tower: Tower, student: ImageLayout | TextLayout, pairs: Pairs, scores: Mask
) -> tuple[State, Layout, Cut]:
    """Cut one tower of `state` to a student's width, blocks, heads and MLP units; the other tower is unchanged.

    `state` and `layout` are the parent's, though the other tower may have been cut before; `scores` are from `unit_importance`.
    """
    view = TransformerTower(parent, tower)
    blocks = blocks_to_keep(view, view.inputs(pairs), len(student.mlp or []))
    mask = _largest(scores, full_mask(parent.layout, tower), blocks, student)
    state, layout = fold(state, layout, {tower: mask})
    state, layout = keep_blocks(state, layout, tower, blocks)
    axes_wd = None
    if student.width < mask.hidden.numel():
        state, layout, axes_wd = narrow_stream(parent, state, layout, tower, pairs, student.width)
    return state, layout, Cut(blocks, axes_wd)


def narrow_stream(
    parent: Clip, state: State, layout: Layout, tower: Tower, pairs: Pairs, width: int | None = None
) -> tuple[State, Layout, Tensor]:
    """Move one tower of `state` to the principal axes of the parent's residual stream, as many as fit into `width` channels.

    `None` keeps the width. Returns state, layout and the map between the streams (w, d).
    """
    view = TransformerTower(parent, tower)
    inputs = view.inputs(pairs)
    axes_wd = principal_axes(view, inputs, width or len(view.final_norm.weight))
    ratio = input_norm_ratio(view, inputs, axes_wd) if tower == "image" else 1.0
    state, layout = change_basis(state, layout, tower, axes_wd, ratio)
    return state, layout, axes_wd


def _largest(scores: Mask, everything: Mask, blocks: Sequence[int], student: ImageLayout | TextLayout) -> Mask:
    """Return the mask that keeps, in each inherited block, as many heads and units as the student has: those of largest score."""
    heads, units = list(everything.heads), list(everything.intermediate)
    for number, block in enumerate(blocks):
        heads[block] = _top(scores.heads[block], (student.heads or [])[number])
        units[block] = _top(scores.intermediate[block], (student.mlp or [])[number])
    return Mask(everything.hidden, tuple(heads), tuple(units))


def _top(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros(len(scores))
    kept[scores.cpu().argsort(descending=True, stable=True)[:count]] = 1
    return kept


def keep_blocks(state: State, layout: Layout, tower: Tower, blocks: Sequence[int]) -> tuple[State, Layout]:
    """Return a tower that has only some of its blocks, in their order."""
    prefix = f"{PREFIXES[tower]}transformer.resblocks."
    kept: State = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            kept[name] = tensor
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        if int(number) in blocks:
            kept[f"{prefix}{list(blocks).index(int(number))}.{rest}"] = tensor
    sizes = layout.image if tower == "image" else layout.text
    update = {"heads": [(sizes.heads or [])[b] for b in blocks], "mlp": [(sizes.mlp or [])[b] for b in blocks]}
    layers = [len(blocks)] if tower == "image" else len(blocks)
    return kept, layout.model_copy(update={tower: sizes.model_copy(update={**update, "layers": layers})})
