"""Batches, and parts of them: joined, cut, and filled where pairs could not be used.

B pairs, C=3 colours, H height, W width, T tokens of a text, P numbers of a view, E embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.stream.positions import DataPosition


@dataclass
class Batch:
    """Pairs, or a loader process's part of them, and their position in the data."""

    images_BCHW: Tensor
    """uint8, cropped, not yet augmented or normalised."""
    tokens_BT: Tensor
    """Up to the end of the longest text; in a part, to the context length."""
    views_BP: Tensor
    """Views of the images (`augment.VIEW`)."""
    samples_B: Tensor
    """Numbers of the samples in their data set."""
    good_B: Tensor
    """False for pairs that could not be used, until others take their place."""
    position: DataPosition
    """The position after this batch."""
    skipped: Skipped
    targets: "list[tuple[Tensor, Tensor]] | None" = None
    """Stored embeddings of images (B, E) and texts (B, E) by each teacher."""
    teacher_images: list[Tensor] = field(default_factory=list)
    """The same crops in each further size (B, C, H, W) that teachers read (`TeacherInputs.pixels`)."""
    teacher_tokens: list[Tensor] = field(default_factory=list)
    """The same captions as tokens (B, T) of each further tokenizer (`TeacherInputs.texts`)."""

    def pin_memory(self) -> "Batch":
        """Copy the tensors to memory from which CUDA copies without keeping the CPU waiting; the loader calls this."""
        targets = self.targets and [(images.pin_memory(), texts.pin_memory()) for images, texts in self.targets]
        return replace(
            self,
            images_BCHW=self.images_BCHW.pin_memory(),
            tokens_BT=self.tokens_BT.pin_memory(),
            targets=targets,
            teacher_images=[images.pin_memory() for images in self.teacher_images],
            teacher_tokens=[tokens.pin_memory() for tokens in self.teacher_tokens],
        )


def join(parts: Sequence[Batch], skipped: Skipped) -> Batch:
    """Join the parts of a batch."""
    if len(parts) == 1:
        return replace(parts[0], skipped=skipped)
    return Batch(
        images_BCHW=torch.cat([part.images_BCHW for part in parts]),
        tokens_BT=torch.cat([part.tokens_BT for part in parts]),
        views_BP=torch.cat([part.views_BP for part in parts]),
        samples_B=torch.cat([part.samples_B for part in parts]),
        good_B=torch.cat([part.good_B for part in parts]),
        position=parts[0].position,
        skipped=skipped,
        targets=_join_targets([part.targets for part in parts]),
        teacher_images=[torch.cat(each) for each in zip(*(part.teacher_images for part in parts), strict=True)],
        teacher_tokens=[torch.cat(each) for each in zip(*(part.teacher_tokens for part in parts), strict=True)],
    )


def _join_targets(targets: Sequence[list[tuple[Tensor, Tensor]] | None]) -> list[tuple[Tensor, Tensor]] | None:
    """Join stored embeddings by teacher. A part without any has only bad pairs, for which others are found."""
    some = [each for each in targets if each]
    if len(some) < len(targets):
        return None
    return [
        (torch.cat([images for images, _ in teacher]), torch.cat([texts for _, texts in teacher]))
        for teacher in zip(*some, strict=True)
    ]


def fill(batch: Batch, spare: Batch | None) -> Batch:
    """Return a batch whose bad pairs are replaced by its good ones in turn, or by those of `spare` if it has none."""
    source = batch if bool(batch.good_B.any()) else spare
    assert source is not None
    good = torch.nonzero(source.good_B).flatten()
    if source is not batch:
        good = torch.arange(len(source.good_B))
    bad = torch.nonzero(~batch.good_B).flatten()
    chosen = good[torch.arange(len(bad)) % len(good)]
    filled = replace(batch, good_B=torch.ones_like(batch.good_B))
    for name in ("images_BCHW", "tokens_BT", "views_BP", "samples_B"):
        getattr(filled, name)[bad] = getattr(source, name)[chosen]
    for own, theirs in zip(_teachers_inputs(filled), _teachers_inputs(source), strict=True):
        own[bad] = theirs[chosen]
    if source.targets:
        filled.targets = filled.targets or [(images.clone(), texts.clone()) for images, texts in source.targets]
        for own, theirs in zip(chain.from_iterable(filled.targets), chain.from_iterable(source.targets), strict=True):
            own[bad] = theirs[chosen]
    return filled


def _teachers_inputs(batch: Batch) -> list[Tensor]:
    return [*batch.teacher_images, *batch.teacher_tokens]


def slots_of(batch: Batch, slots: slice) -> Batch:
    """Return a part of a batch."""
    tensors = {name: getattr(batch, name)[slots] for name in ("images_BCHW", "tokens_BT", "views_BP", "samples_B", "good_B")}
    targets = batch.targets and [(images[slots], texts[slots]) for images, texts in batch.targets]
    return replace(
        batch,
        **tensors,
        targets=targets,
        teacher_images=[images[slots] for images in batch.teacher_images],
        teacher_tokens=[tokens[slots] for tokens in batch.teacher_tokens],
    )
