"""Masks, scores, sizes and the sparsity penalty, against the reference."""

from collections import defaultdict

import pytest
import torch
from tinyclip_workers.model.masks import GROUPS, LOGA_CEILING, LOGA_FLOOR, Granularity, Group, TowerMasks
from tinyclip_workers.model.sparsity import Constraint, joint_lagrangian, parameter_cost, separate_lagrangian
from torch import Tensor

from tests.workers.masked_case import CASES, CONSTRAINT, TOLERANCE, TOWERS, flat, masks_of, noise_of, size_of, tower_layout
from tests.workers.parity import Arrays, Near

every_tower = pytest.mark.parametrize(("case", "tower"), [(case, tower) for case in CASES for tower in TOWERS])


@every_tower
def test_scores_samples_and_deterministic_masks_are_those_of_the_reference(case: str, tower: str, near: Near) -> None:
    masks, arrays = masks_of(case, tower), Arrays("mask.npz", f"{case}/{tower}/")

    kinds = {
        "score": masks.scores(),
        "z_train": masks.sample(noise_of(case, tower)),
        "z_eval": masks.deterministic(),
        "z_sigmoid": masks.deterministic(zeroed=False),
    }

    for kind, mask in kinds.items():
        for group in GROUPS:
            near(flat(mask, group), arrays, f"{kind}_{group}", TOLERANCE, flat=True)


@every_tower
def test_expected_and_reported_sizes_are_those_of_the_reference(case: str, tower: str, near: Near) -> None:
    masks, size, arrays = masks_of(case, tower), size_of(tower), Arrays("mask.npz", f"{case}/{tower}/")

    expected = size.expected(masks.scores())

    near(size.prunable, arrays, "prunable_params", 0.0)
    near(expected, arrays, "expected_params", TOLERANCE)
    near(1 - expected / size.prunable, arrays, "expected_sparsity", TOLERANCE)
    # The reference's size_* arrays are those of the mask before anything is set to 0: all units.
    everything = masks.deterministic(zeroed=False)
    channels, heads, units = (int(flat(everything, group).count_nonzero()) for group in GROUPS)
    weights = channels * (heads * tower_layout(tower).head_width * 4 + units * 2)
    near(weights, arrays, "size_remain_params", 0.0)
    near(torch.tensor(1 - weights / size.prunable, dtype=torch.float64), arrays, "size_pruned_sparsity", 1e-12)
    for group in GROUPS:
        kept = torch.stack([row.count_nonzero() for row in everything.rows(group)])
        near(kept, arrays, f"size_remain_{group}", 0.0, flat=True)


@every_tower
def test_one_towers_lagrangian_and_its_gradients_are_those_of_the_reference(case: str, tower: str, near: Near) -> None:
    arrays, found = Arrays("mask.npz", f"{case}/{tower}/"), defaultdict[str, list[Tensor]](list)

    for step in arrays["lag_steps"].tolist():
        masks = masks_of(case, tower)
        penalty = separate_lagrangian([(masks, size_of(tower))], CONSTRAINT, step)
        penalty.loss.backward()
        found["loss"].append(penalty.loss)
        found["expected"].append(penalty.expected_sparsity)
        found["target"].append(torch.tensor(penalty.target_sparsity))
        found["dlambda"].append(lambda_gradients(masks))
        for group, gradient in loga_gradients(masks).items():
            found[f"d{group}"].append(gradient)

    for name, values in found.items():
        near(torch.stack(values).flatten(), arrays, f"lag_{name}", TOLERANCE, flat=True)


@pytest.mark.parametrize("case", CASES)
def test_the_joint_lagrangian_and_its_gradients_are_those_of_the_reference(case: str, near: Near) -> None:
    arrays, losses, targets = Arrays("mask.npz", f"{case}/"), [], []

    for step in arrays["image/lag_steps"].tolist():
        towers = {tower: masks_of(case, tower) for tower in TOWERS}
        penalty = joint_lagrangian([(towers[tower], size_of(tower)) for tower in TOWERS], CONSTRAINT, step)
        penalty.loss.backward()
        near(penalty.expected_sparsity, arrays, "joint_expected", TOLERANCE)
        losses.append(penalty.loss)
        targets.append(penalty.target_sparsity)

    near(torch.stack(losses), arrays, "joint_loss", TOLERANCE)
    near(torch.tensor(targets), arrays, "joint_target", TOLERANCE)
    near(lambda_gradients(towers["image"]), arrays, "joint_last_dlambda", TOLERANCE)
    for tower, masks in towers.items():
        for group, gradient in loga_gradients(masks).items():
            if (name := f"joint_last_{tower}_d{group}") in arrays:
                near(gradient, arrays, name, TOLERANCE, flat=True)


def loga_gradients(masks: TowerMasks) -> dict[Group, Tensor]:
    return {group: loga.grad for group, loga in masks.loga().items() if loga.grad is not None}


def lambda_gradients(masks: TowerMasks) -> Tensor:
    gradients = [masks.lambda_1.grad, masks.lambda_2.grad]
    return torch.stack([gradient for gradient in gradients if gradient is not None])


def test_separate_constraints_add_up() -> None:
    constraint = Constraint(0.0, 0.9, 0)
    towers = [(masks_of(CASES[0], tower), size_of(tower)) for tower in TOWERS]

    both = separate_lagrangian(towers, constraint, 0)
    alone = [separate_lagrangian([tower], constraint, 0) for tower in towers]

    assert both.loss.item() == pytest.approx(sum(penalty.loss.item() for penalty in alone), rel=1e-6)
    each = [penalty.expected_sparsity for penalty in alone]
    assert min(each) < both.expected_sparsity < max(each)


def test_a_student_smaller_than_the_target_has_no_penalty() -> None:
    towers = [(masks_of(CASES[0], tower), size_of(tower)) for tower in TOWERS]

    penalty = joint_lagrangian(towers, Constraint(0.0, 0.01, 0), 0)
    penalty.loss.backward()

    assert penalty.loss.item() == 0
    assert all(not loga.grad.any() for masks, _ in towers for loga in masks.loga().values() if loga.grad is not None)


def test_noise_is_the_same_for_the_same_seed_and_inside_the_open_interval() -> None:
    masks = TowerMasks(64, [4, 2], [32, 8])

    first, again = (masks.noise(torch.Generator().manual_seed(7)) for _ in range(2))

    assert {group: u.shape for group, u in first.items()} == {"hidden": (64,), "heads": (6,), "intermediate": (40,)}
    assert all(torch.equal(first[group], again[group]) for group in GROUPS)
    assert all(u.min() > 0 and u.max() < 1 for u in first.values())


def test_fresh_masks_keep_everything() -> None:
    masks = TowerMasks(64, [4, 2], [32, 8])

    for mask in (masks.deterministic(), masks.sample(masks.noise(torch.Generator().manual_seed(0)))):
        assert all(row.all() for group in GROUPS for row in mask.rows(group))


def test_clamping_bounds_the_log_odds() -> None:
    masks = TowerMasks(4, [2], [4])
    with torch.no_grad():
        masks.hidden[0] = -20

    masks.clamp_()

    assert masks.hidden.tolist() == pytest.approx([LOGA_FLOOR, *[LOGA_CEILING] * 3])


@pytest.mark.parametrize(("granularity", "kept_at_the_floor", "kept_at_the_top"), [("paper", 145, 3066), ("exact", 0, 3072)])
def test_the_ends_of_the_clamp_count_by_granularity(
    granularity: Granularity, kept_at_the_floor: int, kept_at_the_top: int
) -> None:
    masks = TowerMasks(768, [12, 12], [3072, 3072], granularity)
    with torch.no_grad():
        masks.heads[:12] = masks.intermediate[:3072] = LOGA_FLOOR
    masks.clamp_()

    mask = masks.deterministic()

    assert [int(row.count_nonzero()) for row in mask.intermediate] == [kept_at_the_floor, kept_at_the_top]
    assert [int(row.count_nonzero()) for row in mask.heads] == [1 if granularity == "paper" else 0, 12]


@pytest.mark.parametrize(("granularity", "kept", "idle"), [("paper", 875, 107), ("exact", 768, 0)])
def test_of_units_at_the_ends_of_the_clamp_only_exact_keeps_no_idle_ones(
    granularity: Granularity, kept: int, idle: int
) -> None:
    """A quarter of 3072 units is at the ceiling of the clamp, the others at its floor, where a kept one has the factor 0.004."""
    masks = TowerMasks(768, [12], [3072], granularity)
    with torch.no_grad():
        masks.intermediate[768:] = LOGA_FLOOR
    masks.clamp_()

    row = masks.deterministic().intermediate[0]

    assert int(row.count_nonzero()) == kept
    assert int(((row > 0) & (row < 0.01)).sum()) == idle
    assert masks.scores().intermediate[0].sum().item() == pytest.approx(kept, abs=0.6)


def test_log_odds_at_either_end_have_gradients() -> None:
    masks = TowerMasks(4, [2], [8])
    masks.clamp_()

    joint_lagrangian([(masks, parameter_cost(4, (2,), (8,), 2))], Constraint(0.0, 0.9, 0), 0).loss.backward()

    for loga in masks.loga().values():
        assert loga.grad is not None
        assert (loga.grad > 0).all()
