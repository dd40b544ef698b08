"""Agreement of a student with its teachers on a fixed set of pairs, measured during training without influencing it.

It is the KL divergence of the student's image-text affinities from the teachers' (0: the same), a mean over both directions and
all rows, in evaluation mode and fp32. Unlike the affinity loss it does not include the teachers' entropy. Affinities are those
within a batch of 64 pairs. The pairs are held out of training (`data.train.holdout`); without a holdout they are the first ones
of the shards, which are trained on.

Shapes: N pairs, B of a batch, T tokens, E teacher embedding size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tinyclip.schemas.spec.data import DataSpec, TrainData
from torch import Tensor

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, captions_by_language, captions_of, image_bytes, is_held_out
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.data.stream.inputs import TeacherInputs, TextInput
from tinyclip_workers.model.precision import exact
from tinyclip_workers.model.preprocessing import PixelInput
from tinyclip_workers.model.towers import Model, TwoTowers, longest_text
from tinyclip_workers.training.objective.losses import TeacherEmbeddings
from tinyclip_workers.training.teachers.frozen import FrozenTeacher, teachers_forward
from tinyclip_workers.training.teachers.inputs import InputPreparation, PreparedBatch

MAX_PAIRS, BATCH = 256, 64
MAX_READ = 20_000
"""Samples that are read to find the pairs; with a small holdout there may be fewer pairs."""
WORSE, SLACK = 1.05, 0.01


def is_worse(kl: float, other: float) -> bool:
    """Return whether a divergence is larger than another one by more than 5% and 0.01 nats, or not a number."""
    return not kl <= WORSE * other + SLACK


@dataclass(frozen=True)
class FixedPairs:
    """Pairs that every measurement of a job uses: images as a student is evaluated on them, with their first caption."""

    images: Sequence[Tensor]
    """uint8 (N, C, H, W), not yet normalised: in the student's size, then in those of teachers."""
    tokens: Sequence[Tensor]
    """Token ids (N, T): the student's, then those of teachers."""
    held_out: bool
    """False: the spec has no holdout, and the pairs are trained on."""

    def __len__(self) -> int:
        return len(self.tokens[0])


def read_pairs(spec: DataSpec, image_size: int, text: TextInput, teachers: TeacherInputs) -> FixedPairs | None:
    """Read the first usable pairs that are held out of training, at most MAX_PAIRS; None if there are not even two.

    Raises DataError if no shard can be read.
    """
    train, skipped = spec.train, Skipped()
    transforms = [eval_transform(form) for form in (PixelInput(image_size), *teachers.pixels)]
    tokenizers = [each.tokenize for each in (text, *teachers.texts)]
    language = next((each.language for each in teachers.texts if each.language is not None), None)
    images: list[list[Tensor]] = []
    tokens: list[list[Tensor]] = []
    for number, sample in enumerate(read_shards(expand_shards(train.patterns), skipped)):
        if number == MAX_READ or len(images) == MAX_PAIRS:
            break
        if train.holdout > 0 and not is_held_out(sample["__key__"], train.holdout):
            continue
        with skipped.unusable(sample):
            image, caption = decode_image(image_bytes(sample, train.image_key)), _first_caption(sample, train, language)
            tokens.append([tokenize(caption) for tokenize in tokenizers])
            images.append([transform(image) for transform in transforms])
    if len(images) < 2:
        return None
    by_image, by_text = ([torch.stack(form) for form in zip(*found, strict=True)] for found in (images, tokens))
    return FixedPairs(by_image, by_text, train.holdout > 0)


def _first_caption(sample: Sample, train: TrainData, language: str | None) -> str:
    """Return the first caption of a sample in its shard, in the language that a teacher reads, if it has one.

    Raises any exception.
    """
    if not train.languages:
        return captions_of(sample, train.caption_key)[0]
    found = captions_by_language(sample, train.caption_key, train.languages[0])
    return found.get(language or train.languages[0], next(iter(found.values())))[0]


class TeacherAgreement:
    """The teachers' affinities on fixed pairs, computed once, to compare models with."""

    def __init__(self, pairs: FixedPairs, teachers: Sequence[FrozenTeacher], prepare: InputPreparation, *, trims: bool) -> None:
        """`trims`: the student's texts can be cut at their end (`TextInput`)."""
        self.pairs, self._prepare = pairs, prepare
        self._trims = [trims, *(text.trims for text in prepare.teacher_inputs.texts)]
        with exact():
            self._targets = [_affinities(teachers_forward(teachers, batch.teachers)) for batch in self._batches()]

    @torch.no_grad()
    @exact()
    def kl(self, model: Model) -> float:
        """Return the divergence of a model on the same device, in nats; not finite if the model's embeddings are not."""
        was_training, total = model.training, 0.0
        towers = TwoTowers(model).eval()
        try:
            for batch, target in zip(self._batches(), self._targets, strict=True):
                found = zip(_logits(*towers(*batch.student)[:3]), target, strict=True)
                rows = [F.kl_div(own_BB.log_softmax(dim=1), wanted_BB, reduction="sum") for own_BB, wanted_BB in found]
                total += float(sum(rows)) / 2
        finally:
            model.train(was_training)
        return total / len(self.pairs)

    def _batches(self) -> Iterator[PreparedBatch]:
        for start in range(0, len(self.pairs), BATCH):
            rows = slice(start, start + BATCH)
            tokens = [_trimmed(form[rows], trims) for form, trims in zip(self.pairs.tokens, self._trims, strict=True)]
            yield self._prepare.prepared([form[rows] for form in self.pairs.images], tokens)


def _trimmed(tokens_BT: Tensor, trims: bool) -> Tensor:
    return tokens_BT[:, : longest_text(tokens_BT)] if trims else tokens_BT


def _logits(image_BD: Tensor, text_BD: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return similarities within a batch: image rows, then text rows."""
    similar_BB = scale * image_BD @ text_BD.T
    return similar_BB, similar_BB.T


def _affinities(teachers: Sequence[TeacherEmbeddings]) -> tuple[Tensor, Tensor]:
    """Return the weighted mean of the teachers' softmax similarities within a batch, for image rows and text rows."""
    by_teacher = [_logits(teacher.image_BE, teacher.text_BE, teacher.scale) for teacher in teachers]
    weights = [teacher.weight for teacher in teachers]
    total = sum(weights)  # below 1 if only the first of several teachers is used
    image_BB, text_BB = (
        torch.stack([weight / total * rows_BB.softmax(dim=1) for weight, rows_BB in zip(weights, rows, strict=True)]).sum(0)
        for rows in zip(*by_teacher, strict=True)
    )
    return image_BB, text_BB
