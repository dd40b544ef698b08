"""What a job's student has inherited from its teacher: for drawings that show what was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from tinyclip.schemas import Layout
from tinyclip.schemas.layouts import AnyLayout
from tinyclip.schemas.models import InheritedBlocks

from tinyclip_workers.model.libraries.own_towers import own_layout
from tinyclip_workers.runtime.attempt import JobAttempt

SELECTED_BLOCKS = "blocks"
"""The file of a stage with the numbers of the blocks that its student has inherited from its parent, by tower."""


def inherited_layout(run: JobAttempt, teacher: AnyLayout) -> Layout | None:
    """Return the teacher's layout as one that students inherit from; None if a stage began with random weights."""
    return None if any(stage.inherit == "none" for stage in run.spec.stages) else own_layout(teacher)


def inherited_blocks(run: JobAttempt, student: AnyLayout) -> InheritedBlocks | None:
    """Return the teacher's block of each block of the last student; None if a stage did not record or inherit any."""
    towers: dict[str, Sequence[int]] | None = None
    if not isinstance(student, Layout):
        return None
    for index, stage in enumerate(run.spec.stages):
        if stage.inherit == "none":
            return None
        selected = run.selection(index, SELECTED_BLOCKS)
        if selected is None and stage.prune is not None:
            continue  # all blocks are kept, though they may lose their heads or units
        if selected is None:
            return None
        towers = selected if towers is None else _composed(towers, selected)
    if towers is None:
        image = list(range(student.image.layers[0])) if student.is_vit else None
        return InheritedBlocks(image=image, text=list(range(student.text.layers)))
    return InheritedBlocks.model_validate(towers)


def _composed(before: Mapping[str, Sequence[int]], selected: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    return {tower: [before[tower][block] for block in blocks] for tower, blocks in selected.items() if tower in before}
