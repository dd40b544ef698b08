"""Students out of a larger model: of given sizes, by importance (`select: importance`), or of the units that masks keep.

The formulas are in METHOD section 13. Shapes: N calibration pairs, B of a part, D and E embedding sizes of student and teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.inheritance.importance import unit_importance
from tinyclip_workers.inheritance.leading import ImpossibleInheritance, check_inheritable, inherit_leading, read_otherwise
from tinyclip_workers.inheritance.pooling import cut_pooling
from tinyclip_workers.inheritance.reconstruction import Reconstruction
from tinyclip_workers.inheritance.resnets import cut_resnet
from tinyclip_workers.inheritance.streams import Pairs, TransformerTower
from tinyclip_workers.inheritance.transformers import Cut, cut_tower, narrow_stream
from tinyclip_workers.model.fold import State, fold
from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.towers import Clip, Model, encode_text, normalized


@dataclass(frozen=True)
class Calibration:
    """Pairs and targets by which a student is cut out of its parent."""

    pairs: Pairs
    targets: Mapping[Tower, list[Tensor]]
    """The embeddings that each part of the pairs should have (`embedding_targets`)."""
    teacher_pairs: Pairs | None = None
    """The same pairs as the teacher reads them; None: as the student does."""


@torch.no_grad()
def embedding_targets(teacher: Model, pairs: Pairs, embed_dim: int, *, trims: bool = True) -> dict[Tower, list[Tensor]]:
    """Return a teacher's embeddings (B, D) of each part of the pairs, all of the mean length that they have in the teacher.

    `trims`: whether it reads texts up to their end only.
    For a student with smaller embeddings (D < E) they are projected to their principal axes, which preserve similarities best.
    """
    raw: dict[Tower, list[Tensor]] = {
        "image": [teacher.encode_image(images) for images in pairs.images()],
        "text": [encode_text(teacher, tokens) for tokens in pairs.texts(trims)],
    }
    units = {tower: [normalized(part) for part in parts] for tower, parts in raw.items()}
    whole_NE = torch.cat([*units["image"], *units["text"]])
    axes_ED = torch.eye(whole_NE.shape[1]).to(whole_NE)
    if embed_dim < whole_NE.shape[1]:
        _, vectors = torch.linalg.eigh((whole_NE.T @ whole_NE).cpu().double())
        axes_ED = vectors.flip(1)[:, :embed_dim].to(whole_NE)
    lengths = {tower: float(torch.cat(parts).norm(dim=1).mean()) for tower, parts in raw.items()}
    return {tower: [lengths[tower] * part @ axes_ED for part in parts] for tower, parts in units.items()}


def selection_problems(student: Layout, parent: Layout) -> Iterator[ImpossibleInheritance]:
    """Yield every size that a student selected by importance must share with its parent and does not."""
    if student.image.kind != parent.image.kind or read_otherwise(student, parent):
        return  # one of `inheritance_problems`
    shared = [
        ("image.image_size", student.image.image_size, parent.image.image_size),
        ("image.patch_size", student.image.patch_size, parent.image.patch_size),
        ("image.head_width", student.image.head_width, parent.image.head_width),
        ("text.heads", student.text.head_width, parent.text.head_width),
    ]
    for field, own, there in shared:
        if own != there:
            what = "heads of width " if field == "text.heads" else ""
            message = f"{what}{own} cannot be selected from {what}{there}, the parent's; give {there}, or use select: leading"
            yield ImpossibleInheritance(field, own, message)


def inherit_by_importance(
    student: Layout, parent: Clip, calibration: Calibration, selected: dict[Tower, list[int]] | None = None
) -> State:
    """Return the state dict of a student of a layout that fits into its parent's, with open_clip's names.

    Of each transformer tower it has the most important heads and MLP units of the blocks whose loss would change most, on the
    principal axes of the residual stream, fitted to the targets; of a ResNet, the most important channels of such blocks. Words,
    positions and the size of the embedding are the leading ones. The parent is in evaluation mode and is not changed.
    `selected` receives the numbers of the parent's blocks for each transformer tower. Raises ImpossibleInheritance.
    """
    check_inheritable(student, parent.layout)
    for problem in selection_problems(student, parent.layout):
        raise problem
    pairs = calibration.pairs
    scores = unit_importance(parent, pairs)
    state, layout = dict(parent.state_dict()), parent.layout
    cuts: dict[Tower, Cut] = {}
    for tower in scores:
        sizes = student.image if tower == "image" else student.text
        state, layout, cuts[tower] = cut_tower(parent, state, layout, tower, sizes, pairs, scores[tower])
        if selected is not None:
            selected[tower] = cuts[tower].blocks
    if student.image.pool is not None:
        state, layout = cut_pooling(parent, state, layout, student.image.pool, pairs)
    if student.image.kind == "resnet":
        state |= cut_resnet(parent, student, pairs, calibration.targets["image"])
        layout = layout.model_copy(update={"image": student.image})
    built = Clip(student).to(parent.logit_scale.device).eval()
    built.load_state_dict(inherit_leading(built, state, student, layout))
    _fit(built, parent, calibration, cuts)
    return built.state_dict()


def on_principal_axes(parent: Clip, pairs: Pairs, towers: Sequence[Tower]) -> State:
    """Return the parent with the residual streams of some towers on their principal axes, in order: it computes the same."""
    state, layout = dict(parent.state_dict()), parent.layout
    for tower in towers:
        state, layout, _ = narrow_stream(parent, state, layout, tower, pairs)
    return state


def cut_by_masks(parent: Clip, masks: Mapping[Tower, Mask], calibration: Calibration) -> Clip:
    """Return the student that keeps exactly the units of non-zero factor, with factor 1, fitted to the targets."""
    state, layout = fold(parent.state_dict(), parent.layout, {tower: mask.binary() for tower, mask in masks.items()})
    student = Clip(layout).to(parent.logit_scale.device).eval()
    student.load_state_dict(state)
    cuts: dict[Tower, Cut] = {}
    for tower, mask in masks.items():
        chosen_wd = torch.eye(len(mask.hidden), dtype=torch.float64)[mask.hidden.cpu() != 0]
        cuts[tower] = Cut(list(range(len(mask.heads))), chosen_wd)
    _fit(student, parent, calibration, cuts)
    return student


def _fit(student: Clip, parent: Clip, calibration: Calibration, cuts: Mapping[Tower, Cut]) -> None:
    for tower, cut in cuts.items():
        views = TransformerTower(student, tower), TransformerTower(parent, tower)
        inputs = views[0].inputs(calibration.pairs)
        Reconstruction(*views, inputs, cut.to_student).fit(cut.blocks, calibration.targets[tower])
