"""Checks of automatic stages, and estimates of the students that they prune to."""

import math
from collections.abc import Callable, Sequence

from tinyclip.schemas import Layout
from tinyclip.schemas.layouts import ImageLayout, TextLayout
from tinyclip.schemas.spec import OptimizerSpec, PruneSpec, PruneTarget, StageSpec

from tinyclip_workers.costs.student_cost import target_cost
from tinyclip_workers.model.layouts import ImpossibleStudent
from tinyclip_workers.model.masked import size_of
from tinyclip_workers.model.masks import BETA, LOGA_CEILING, STRETCH_FROM, STRETCH_TO, Tower
from tinyclip_workers.model.sparsity import kept_in
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.training.pruning import goal_of, shown_cost, with_fewer_blocks

BISECTIONS = 30


def check_prune(
    index: int, prune: PruneSpec, parent: Layout, before: StageSpec | None, diagnostics: Diagnostics, *, estimated: bool = False
) -> bool:
    """Check what does not depend on the stage's length. `before`: the previous stage; `estimated`: the parent is an estimate.

    Returns whether a student can be estimated.
    """
    at = f"/stages/{index}/prune"
    if "image" in prune.towers and parent.image.kind != "vit":
        diagnostics.error(
            f"{at}/towers", prune.towers,
            "the image tower is a ResNet, which has no heads or MLP units to mask; "
            "give a ViT teacher, or prune.towers: [text], or use inherit: manual",
        )
    if prune.prune_step is not None and prune.sparsity_warmup > prune.prune_step:
        diagnostics.error(
            f"{at}/sparsity_warmup", prune.sparsity_warmup,
            f"ends after the prune step {prune.prune_step}, so that the target would never be reached; "
            "lower it, to a third of prune_step as in the paper",
        )
    if prune.target_sparsity is not None:
        _check_sparsity(at, prune, prune.target_sparsity, before, diagnostics)
    return _check_cost(at, prune, parent, diagnostics, estimated)


def _check_sparsity(at: str, prune: PruneSpec, target: float, before: StageSpec | None, diagnostics: Diagnostics) -> None:
    if target <= prune.start_sparsity:
        message = f"is not more than start_sparsity {prune.start_sparsity:g}; raise it or lower start_sparsity"
        diagnostics.error(f"{at}/target_sparsity", target, message)
    earlier = before.prune if before is not None else None
    if earlier is None or earlier.target_sparsity is None or set(earlier.towers) != set(prune.towers):
        return
    if earlier.target_sparsity >= target:
        diagnostics.error(
            f"{at}/target_sparsity", target,
            f"the stage before already prunes as much (its target is {earlier.target_sparsity:g} of the same "
            "model); raise it",
        )


def _check_cost(at: str, prune: PruneSpec, parent: Layout, diagnostics: Diagnostics, estimated: bool) -> bool:
    """Check the blocks to keep and the target in units of cost; returns False if they are impossible."""
    try:
        smaller = with_fewer_blocks(parent, prune.layers)
        if estimated and smaller != parent:
            message = "blocks of the student of the stage before will differ in size; give layers in the first automatic stage"
            diagnostics.error(f"{at}/layers", prune.layers.model_dump() if prune.layers else None, message)
            return False
        if prune.target is None or ("image" in prune.towers and parent.image.kind != "vit"):
            return prune.target is None
        goal_of(prune, smaller)
    except ImpossibleStudent as error:
        pointer = f"{at}/{error.field.removeprefix('prune.').replace('.', '/')}"
        diagnostics.error(pointer, error.value, error.message)
        return False
    full, kind = target_cost(prune.target, smaller, prune.towers).full, prune.target.kind
    if prune.target.value >= full:
        message = f"is no less than the {shown_cost(full)} of the model to prune, so that nothing is removed; lower it"
        if estimated or prune.layers is not None:
            diagnostics.warn(f"{at}/target/{kind}: {prune.target.value:,.15g} {message}")
        else:
            diagnostics.error(f"{at}/target/{kind}", prune.target.value, message)
    return True


def check_prune_step(
    index: int,
    stage: StageSpec,
    before: StageSpec | None,
    steps: int,
    optimizer: OptimizerSpec,
    parent: Layout,
    diagnostics: Diagnostics,
) -> None:
    """Check what depends on the stage's length. `before`: the previous stage; `parent`: the model to prune."""
    prune, earlier = stage.prune, before.prune if before is not None else None
    assert prune is not None
    if prune.prune_step is None:
        return
    if prune.prune_step >= steps:
        diagnostics.error(
            f"/stages/{index}/prune/prune_step", prune.prune_step,
            f"is not before the end of the stage, which has {steps} steps; lower it or train longer",
        )
    already, target = 0.0, prune.target_sparsity
    if target is None:  # relative to the model to prune
        target = goal_of(prune, with_fewer_blocks(parent, prune.layers)).constraint.target
    elif earlier is not None and earlier.target_sparsity is not None:
        already = earlier.target_sparsity
    needed = steps_to_reach(min(0.99, max(0.01, 1 - (1 - target) / (1 - already))), optimizer.mask_lr)
    if prune.prune_step < needed:
        diagnostics.warn(
            f"stage {stage.name} prunes at step {prune.prune_step}, but masks that move by optimizer.mask_lr "
            f"{optimizer.mask_lr:g} a step need about {needed} to reach a sparsity of {target:.3g}: "
            "raise prune.prune_step or optimizer.mask_lr"
        )


def steps_to_reach(sparsity: float, mask_lr: float) -> int:
    """Return the steps in which Adam, at about `mask_lr` a step, moves all log-odds from the clamp to the expected sparsity.

    Measured on a small trained teacher: 0.8 times as many for a sparsity of 0.25 and 1.1 times for 0.75.
    """
    kept = math.sqrt(1 - sparsity)  # of channels, and of heads and units: a weight needs both
    loga = math.log(kept / (1 - kept)) + BETA * math.log(-STRETCH_FROM / STRETCH_TO)
    return math.ceil((LOGA_CEILING - loga) / mask_lr)


def estimated_layout(prune: PruneSpec, parent: Layout, original: Layout) -> Layout:
    """Estimate the student of an automatic stage: its pruned towers, thinned evenly to the target. In fact, layers differ."""
    parent = with_fewer_blocks(parent, prune.layers)
    if prune.target is not None:
        return _thinned_to_cost(prune.target, prune.towers, parent)
    changed: dict[str, ImageLayout | TextLayout] = {}
    assert prune.target_sparsity is not None  # the schema requires one of the two
    if "image" in prune.towers and original.image.kind == "vit":
        changed["image"] = _thinned(parent.image, original.image, prune.target_sparsity)
    if "text" in prune.towers:
        changed["text"] = _thinned(parent.text, original.text, prune.target_sparsity)
    return parent.model_copy(update=changed)


def _thinned(
    parent: ImageLayout | TextLayout, original: ImageLayout | TextLayout, sparsity: float
) -> ImageLayout | TextLayout:
    """Scale channels and heads by the square root of the share that is kept; MLP units compensate for rounding."""
    all_blocks, blocks = size_of(original), len(parent.heads or [])
    update = {"heads": (original.heads or [])[:blocks], "mlp": (original.mlp or [])[:blocks]}
    size, left = size_of(original.model_copy(update=update)), (1 - sparsity) * all_blocks.prunable
    share = math.sqrt(min(1.0, left / size.prunable))
    width = max(1, min(parent.width, round(original.width * share)))
    heads = [max(1, min(own, round(full * share))) for own, full in zip(parent.heads or [], size.heads, strict=True)]
    wanted = left - size.cost(kept_in(width, heads, [0] * len(heads)))
    factor = max(0.0, wanted / (2 * width) / sum(size.intermediate))
    mlp = [max(1, min(own, round(full * factor))) for own, full in zip(parent.mlp or [], size.intermediate, strict=True)]
    return parent.model_copy(update={"width": width, "heads": heads, "mlp": mlp})


def _thinned_to_cost(target: PruneTarget, towers: Sequence[Tower], parent: Layout) -> Layout:
    """Scale channels, heads and MLP units by one factor; MLP units compensate for the rounding of the others."""
    cost = target_cost(target, parent, towers)

    def fits(sizes: dict[Tower, ImageLayout | TextLayout]) -> bool:
        kept = {tower: kept_in(own.width, own.heads or [], own.mlp or []) for tower, own in sizes.items()}
        return cost.constant + sum(cost.towers[tower].cost(units) for tower, units in kept.items()) <= target.value

    def scaled(share: float, units: float) -> dict[Tower, ImageLayout | TextLayout]:
        return {tower: _scaled(parent.image if tower == "image" else parent.text, share, units) for tower in towers}

    share = _largest(lambda share: fits(scaled(share, share)))
    units = _largest(lambda units: fits(scaled(share, units)))
    return parent.model_copy(update={str(tower): sizes for tower, sizes in scaled(share, max(share, units)).items()})


def _scaled(tower: ImageLayout | TextLayout, share: float, units: float) -> ImageLayout | TextLayout:
    heads, mlp = ([round(count * by) for count in row or []] for row, by in ((tower.heads, share), (tower.mlp, units)))
    return tower.model_copy(update={"width": max(1, round(tower.width * share)), "heads": heads, "mlp": mlp})


def _largest(fits: Callable[[float], bool]) -> float:
    """Return the largest number of [0, 1] that fits, by bisection."""
    low, high = 0.0, 1.0
    if fits(high):
        return high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
