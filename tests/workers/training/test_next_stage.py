"""A stage that starts from a pruned student: as in the reference, and ours, which keeps no removed units."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from tinyclip_workers.model.fold import fold, folded_layout
from tinyclip_workers.model.masked import MaskedTowers, fresh_masks, size_of
from tinyclip_workers.model.masks import GROUPS, LOGA_AT_START, Group, Mask, TowerMasks
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip
from torch import Tensor

from tests.workers.masked_case import CASES, LAYOUT, TOLERANCE, TOWERS, full_student, inputs, masks_of, tower_layout
from tests.workers.masked_case import size_of as size_of_case
from tests.workers.parity import Arrays, Near, assert_near

_IN_PROJ = re.compile(r"attn\.in_proj_(weight|bias)$")


def expand_state(small: Mapping[str, Tensor], full: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Start a stage as the reference does: every pruned tensor is the leading slice of a full one of zeros (q, k and v each).

    `full` gives names, shapes and types. Missing tensors are zero. The logit scale is copied.
    """
    state = {name: torch.zeros_like(tensor) for name, tensor in full.items()}
    for name, tensor in small.items():
        target = state[name]
        if _IN_PROJ.search(name):
            target, tensor = (t.view(3, t.shape[0] // 3, *t.shape[1:]) for t in (target, tensor))
        target[tuple(slice(size) for size in tensor.shape)] = tensor
    return state


def expand_masks(small: Layout, full: Layout) -> dict[str, TowerMasks]:
    """Return masks of the full towers: log-odds +10 for as many leading units as the small ones have, -10 for the others."""
    pairs: dict[str, tuple[ImageLayout | TextLayout, ImageLayout | TextLayout]] = {
        "image": (small.image, full.image),
        "text": (small.text, full.text),
    }
    return {tower: _alive(fresh_masks(there, "paper"), fresh_masks(own)) for tower, (own, there) in pairs.items()}


@torch.no_grad()
def _alive(full: TowerMasks, small: TowerMasks) -> TowerMasks:
    for group, loga in full.loga().items():
        rows = loga.split(full.sizes[group])
        for row, kept_units in zip(rows, small.sizes[group], strict=True):
            row[kept_units:] = -LOGA_AT_START
    return full


def masks_at_the_prune(case: str) -> dict[str, TowerMasks]:
    return {tower: masks_of(case, tower) for tower in TOWERS}


@pytest.mark.parametrize("case", CASES)
def test_the_references_next_stage_is_reproduced(case: str, near: Near) -> None:
    student, arrays = full_student(), Arrays("mask.npz", f"{case}/")
    masks = {tower: masks.deterministic() for tower, masks in masks_at_the_prune(case).items()}
    pruned, layout = fold(student.state_dict(), LAYOUT, masks, parity=True)

    full = Clip(LAYOUT)
    full.load_state_dict(expand_state(pruned, student.state_dict()))
    next_masks = expand_masks(layout, LAYOUT)
    images, tokens = inputs()
    image = full.encode_image(images, next_masks["image"].deterministic())
    text = full.encode_text(tokens, next_masks["text"].deterministic())

    near(image, arrays, "next_image", TOLERANCE)
    near(text, arrays, "next_text", TOLERANCE)
    for name, theirs in Arrays("prune.npz").under(f"{case}_next/").items():
        assert_near(full.state_dict()[name], theirs, TOLERANCE, name)
    for tower in TOWERS:
        assert_masks_are_the_references(next_masks[tower], tower, Arrays("mask.npz", f"{case}/next/{tower}/"), near)
        next_masks[tower].clamp_()
        assert_masks_are_the_references(next_masks[tower], tower, Arrays("mask.npz", f"{case}/next_clamped/{tower}/"), near)


def assert_masks_are_the_references(masks: TowerMasks, tower: str, arrays: Arrays, near: Near) -> None:
    size = size_of_case(tower)
    for group, loga in masks.loga().items():
        near(loga, arrays, f"loga_{group}", TOLERANCE, flat=True)
        kept = torch.stack([row.count_nonzero() for row in masks.deterministic().rows(group)])
        near(kept, arrays, f"kept_eval_{group}", 0.0, flat=True)
    near(1 - size.expected(masks.scores()) / size.prunable, arrays, "expected_sparsity", TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_our_next_stage_masks_the_pruned_student_and_counts_no_removed_unit(case: str) -> None:
    masks = {tower: masks.deterministic() for tower, masks in masks_at_the_prune(case).items()}
    state, layout = fold(full_student().state_dict(), LAYOUT, masks)
    small = Clip(layout)
    small.load_state_dict(state)

    towers = MaskedTowers(small, LAYOUT, ("image", "text"), Constraint(0.0, 0.9, 0))
    towers.clamp_()

    assert folded_layout(layout, towers.deterministic()) == layout
    everything = {tower: Mask(*(indicator(masks[tower], group) for group in GROUPS)) for tower in TOWERS}
    kept = sum(size_of_case(tower).expected(everything[tower]).item() for tower in TOWERS)
    full = sum(size_of_case(tower).prunable for tower in TOWERS)
    assert towers.sparsity_penalty(0).expected_sparsity == pytest.approx(1 - kept / full, rel=1e-5)


def indicator(mask: Mask, group: Group) -> Any:
    rows = tuple((row != 0).float() for row in mask.rows(group))
    return rows[0] if group == "hidden" else rows


@pytest.mark.parametrize("case", CASES)
def test_a_small_student_folds_again(case: str) -> None:
    torch.manual_seed(0)
    masks = {tower: masks.deterministic() for tower, masks in masks_at_the_prune(case).items()}
    state, layout = fold(full_student().state_dict(), LAYOUT, masks)
    small = Clip(layout)
    small.load_state_dict(state)
    towers = MaskedTowers(small, LAYOUT, ("image", "text"), Constraint(0.0, 0.9, 0))
    with torch.no_grad():
        for tower_masks in towers.tower_masks().values():
            for loga in tower_masks.loga().values():
                loga.uniform_(-4.6, 4.6)

    smaller = towers.folded_model()

    assert smaller.layout.image.width < layout.image.width
    for found, masked in zip(features(smaller), towers(*inputs()), strict=False):
        torch.testing.assert_close(found, masked, rtol=1e-5, atol=1e-5)


def features(model: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    images, tokens = inputs()
    normalize = torch.nn.functional.normalize
    return normalize(model.encode_image(images), dim=-1), normalize(model.encode_text(tokens), dim=-1)


def test_many_removed_units_do_not_restore_one() -> None:
    full = LAYOUT.text.model_copy(update={"layers": 1, "heads": [12], "mlp": [3072], "width": 768, "head_width": 64})
    small = full.model_copy(update={"mlp": [768]})

    theirs = expand_masks(
        LAYOUT.model_copy(update={"text": small}), LAYOUT.model_copy(update={"text": full})
    )["text"]
    ours = fresh_masks(small)

    assert int(theirs.deterministic().intermediate[0].count_nonzero()) == 769
    theirs.clamp_()
    assert int(theirs.deterministic().intermediate[0].count_nonzero()) == 875
    ours.clamp_()
    assert int(ours.deterministic().intermediate[0].count_nonzero()) == 768


def test_a_resnet_has_no_masks() -> None:
    resnet = LAYOUT.image.model_copy(update={"kind": "resnet", "heads": None, "mlp": None})

    with pytest.raises(ValueError, match=r"prune\.towers: image: .* use prune\.towers: \[text\]"):
        size_of(resnet)


def test_sizes_are_those_of_the_unpruned_tower() -> None:
    for tower in TOWERS:
        assert size_of(tower_layout(tower)) == size_of_case(tower)
    assert GROUPS == ("hidden", "heads", "intermediate")
