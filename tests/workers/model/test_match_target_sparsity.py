"""At the prune step the student gets the target size, whether the search exceeded it or fell short of it."""

import pytest
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.model.masked import MaskedTowers, Tower, removed_share
from tinyclip_workers.model.sparsity import Constraint

from tests.workers.masked_case import LAYOUT, TOWERS, full_student, inputs

BOTH: tuple[Tower, ...] = ("image", "text")


def search(mean_loga: float, target: float, *, towers: tuple[Tower, ...] = BOTH, joint: bool = True) -> MaskedTowers:
    """Make a search whose log-odds are spread around a mean."""
    found = MaskedTowers(full_student(), LAYOUT, towers, Constraint(0.0, target, 0), joint=joint)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for masks in found.tower_masks().values():
            for loga in masks.loga().values():
                loga.normal_(mean_loga, 1.5, generator=generator)
    found.clamp_()
    return found


def one_unit(layout: Layout, towers: tuple[Tower, ...]) -> float:
    """Return about the share of the largest unit: a channel, or a head if there are few."""
    return max(max(1 / side.width, 1 / sum(side.heads or [])) for side in (getattr(layout, tower) for tower in towers))


@pytest.mark.parametrize("target", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("mean_loga", [-2.5, -1.6, 1.0, 4.0], ids=["far beyond", "beyond", "short", "hardly begun"])
def test_the_student_has_just_the_target_size(mean_loga: float, target: float) -> None:
    towers = search(mean_loga, target)

    towers.match_target_sparsity()

    removed = removed_share(LAYOUT, towers.folded_model().layout, TOWERS)
    assert removed == pytest.approx(towers.sparsity())
    assert target <= removed < target + one_unit(LAYOUT, BOTH)


@pytest.mark.parametrize("tower", BOTH)
def test_under_separate_constraints_each_tower_matches_its_target(tower: Tower) -> None:
    towers = search(-2.0, 0.5, joint=False)

    towers.match_target_sparsity()

    assert 0.5 <= removed_share(LAYOUT, towers.folded_model().layout, [tower]) < 0.5 + one_unit(LAYOUT, (tower,))


def test_one_tower_alone_matches_the_target() -> None:
    towers = search(1.0, 0.5, towers=("text",))

    towers.match_target_sparsity()

    small = towers.folded_model().layout
    assert 0.5 <= removed_share(LAYOUT, small, ["text"]) < 0.5 + one_unit(LAYOUT, ("text",))
    assert small.image == LAYOUT.image


def test_kept_units_have_the_order_and_the_factors_of_the_search() -> None:
    towers = search(-2.5, 0.5)
    before = towers.deterministic()["image"].hidden

    towers.match_target_sparsity()

    after = towers.deterministic()["image"].hidden
    kept = before != 0
    assert int(after.count_nonzero()) > int(kept.sum())
    assert torch.equal(after[kept], before[kept])
    loga = towers.tower_masks()["image"].hidden
    assert loga[after != 0].min() >= loga[after == 0].max()


def test_the_folded_model_computes_what_the_masked_one_of_the_target_size_does() -> None:
    towers = search(-2.5, 0.5).eval()
    towers.match_target_sparsity()
    images, tokens = inputs()

    with torch.no_grad():
        masked = towers(images, tokens)
        small = towers.folded_model()
        folded = small.encode_image(images), small.encode_text(tokens)

    for found, wanted in zip(folded, masked[:2], strict=True):
        torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), wanted, rtol=1e-5, atol=1e-5)
