"""Checks of automatic stages, and estimates of the students that they prune to."""

import math

from tinyclip.schemas import Layout
from tinyclip.schemas.layouts import ImageLayout, TextLayout
from tinyclip.schemas.spec import OptimizerSpec, PruneSpec, StageSpec

from tinyclip_workers.model.masked import size_of
from tinyclip_workers.model.masks import BETA, LOGA_CEILING, STRETCH_FROM, STRETCH_TO
from tinyclip_workers.plan.diagnostics import Diagnostics


def check_prune(
    index: int, prune: PruneSpec, parent: Layout, before: StageSpec | None, diagnostics: Diagnostics
) -> None:
    """Check what does not depend on the stage's length. `before`: the previous stage."""
    at = f"/stages/{index}/prune"
    if "image" in prune.towers and parent.image.kind != "vit":
        diagnostics.error(
            f"{at}/towers", prune.towers,
            "the image tower is a ResNet, which has no heads or MLP units to mask; "
            "give a ViT teacher, or prune.towers: [text], or use inherit: manual",
        )
    if prune.target_sparsity <= prune.start_sparsity:
        message = f"is not more than start_sparsity {prune.start_sparsity:g}; raise it or lower start_sparsity"
        diagnostics.error(f"{at}/target_sparsity", prune.target_sparsity, message)
    if prune.prune_step is not None and prune.sparsity_warmup > prune.prune_step:
        diagnostics.error(
            f"{at}/sparsity_warmup", prune.sparsity_warmup,
            f"ends after the prune step {prune.prune_step}, so that the target would never be reached; "
            "lower it, to a third of prune_step as in the paper",
        )
    earlier = before.prune if before is not None else None
    if earlier is not None and set(earlier.towers) == set(prune.towers) and earlier.target_sparsity >= prune.target_sparsity:
        diagnostics.error(
            f"{at}/target_sparsity", prune.target_sparsity,
            f"the stage before already prunes as much (its target is {earlier.target_sparsity:g} of the same "
            "model); raise it",
        )


def check_prune_step(
    index: int, stage: StageSpec, before: StageSpec | None, steps: int, optimizer: OptimizerSpec, diagnostics: Diagnostics
) -> None:
    """Check what depends on the stage's length. `before`: the previous stage."""
    prune, earlier = stage.prune, before.prune if before is not None else None
    assert prune is not None
    if prune.prune_step is None:
        return
    if prune.prune_step >= steps:
        diagnostics.error(
            f"/stages/{index}/prune/prune_step", prune.prune_step,
            f"is not before the end of the stage, which has {steps} steps; lower it or train longer",
        )
    already = earlier.target_sparsity if earlier is not None else 0.0
    needed = steps_to_reach(max(0.01, 1 - (1 - prune.target_sparsity) / (1 - already)), optimizer.mask_lr)
    if prune.prune_step < needed:
        diagnostics.warn(
            f"stage {stage.name} prunes at step {prune.prune_step}, but masks that move by optimizer.mask_lr "
            f"{optimizer.mask_lr:g} a step need about {needed} to reach a sparsity of {prune.target_sparsity:g}: "
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
    changed: dict[str, ImageLayout | TextLayout] = {}
    if "image" in prune.towers and original.image.kind == "vit":
        changed["image"] = _thinned(parent.image, original.image, prune.target_sparsity)
    if "text" in prune.towers:
        changed["text"] = _thinned(parent.text, original.text, prune.target_sparsity)
    return parent.model_copy(update=changed)


def _thinned(
    parent: ImageLayout | TextLayout, original: ImageLayout | TextLayout, sparsity: float
) -> ImageLayout | TextLayout:
    """Scale channels and heads by the square root of the share that is kept; MLP units compensate for rounding."""
    size, share = size_of(original), math.sqrt(1 - sparsity)
    width = max(1, min(parent.width, round(original.width * share)))
    heads = [max(1, min(own, round(full * share))) for own, full in zip(parent.heads or [], size.heads, strict=True)]
    wanted = (1 - sparsity) * size.prunable - size.cost(float(width), float(sum(heads)), 0.0)
    factor = max(0.0, wanted / (2 * width) / sum(size.intermediate))
    mlp = [max(1, min(own, round(full * factor))) for own, full in zip(parent.mlp or [], size.intermediate, strict=True)]
    return parent.model_copy(update={"width": width, "heads": heads, "mlp": mlp})
