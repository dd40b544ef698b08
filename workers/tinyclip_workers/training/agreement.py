"""Agreement of a student with its teachers on a fixed set of pairs, measured during training without influencing it.

It is the KL divergence of the student's image-text affinities from the teachers' (0: the same), a mean over both directions and
all rows, in evaluation mode and fp32. Unlike the affinity loss it does not include the teachers' entropy. Affinities are those
within a batch of 64 pairs. The pairs are held out of training (`data.train.holdout`); without a holdout they are the first ones
of the shards, which are trained on.

Shapes: N pairs, B of a batch, T tokens, E teacher embedding size.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec.data import DataSpec
from torch import Tensor

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.images import decode_image, eval_transform
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import captions_of, image_bytes, is_held_out
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.data.stream import SingleTextTokenizer, Tokenize
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import Color, normalize
from tinyclip_workers.model.towers import Model, TwoTowers, without_padding
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.losses import TeacherEmbeddings
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.teachers import FrozenTeacher, teachers_forward

MAX_PAIRS, BATCH = 256, 64
MAX_READ = 20_000
"""Samples that are read to find the pairs; with a small holdout there may be fewer pairs."""

MEASUREMENTS = 10
"""Measurements of a stage, if the spec has no `evaluation.every_steps`; the last one is at its end."""

WORSE, SLACK = 1.05, 0.01
"""A divergence is worse than another one if it exceeds this many times the other, plus `SLACK` nats."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FixedPairs:
    """Pairs that every measurement of a job uses: images as a student is evaluated on them, with their first caption."""

    images_NCHW: Tensor
    """uint8, not yet normalised."""
    tokens_NT: Tensor
    held_out: bool
    """False: the spec has no holdout, and the pairs are trained on."""


def read_pairs(spec: DataSpec, image_size: int, tokenize: Tokenize) -> FixedPairs | None:
    """Read the first usable pairs that are held out of training, at most MAX_PAIRS; None if there are not even two.

    Raises DataError if no shard can be read.
    """
    train, skipped = spec.train, Skipped()
    images: list[Tensor] = []
    tokens: list[Tensor] = []
    for number, sample in enumerate(read_shards(expand_shards(train.shards), skipped)):
        if number == MAX_READ or len(images) == MAX_PAIRS:
            break
        if train.holdout > 0 and not is_held_out(sample["__key__"], train.holdout):
            continue
        with skipped.unusable(sample):
            image = eval_transform(image_size)(decode_image(image_bytes(sample, train.image_key)))
            tokens.append(tokenize(captions_of(sample, train.caption_key)[0]))
            images.append(image)
    if len(images) < 2:
        return None
    return FixedPairs(torch.stack(images), torch.stack(tokens), train.holdout > 0)


class TeacherAgreement:
    """The teachers' affinities on fixed pairs, computed once, to compare models with."""

    def __init__(
        self, pairs: FixedPairs, teachers: Sequence[FrozenTeacher], device: torch.device, *, mean: Color, std: Color
    ) -> None:
        self.pairs, self._device, self._mean, self._std = pairs, device, mean, std
        self._targets: list[tuple[Tensor, Tensor]] = []
        for images_BCHW, tokens_BT in self._batches():
            self._targets.append(_affinities(teachers_forward(teachers, images_BCHW, tokens_BT)))

    @torch.no_grad()
    def kl(self, model: Model) -> float:
        """Return the divergence of a model on the same device, in nats; not finite if the model's embeddings are not."""
        was_training, total = model.training, 0.0
        towers = TwoTowers(model).eval()
        try:
            for (images_BCHW, tokens_BT), target in zip(self._batches(), self._targets, strict=True):
                found = zip(_logits(*towers(images_BCHW, tokens_BT)), target, strict=True)
                rows = [F.kl_div(own_BB.log_softmax(dim=1), wanted_BB, reduction="sum") for own_BB, wanted_BB in found]
                total += float(sum(rows)) / 2
        finally:
            model.train(was_training)
        return total / len(self.pairs.tokens_NT)

    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        parts = zip(self.pairs.images_NCHW.split(BATCH), self.pairs.tokens_NT.split(BATCH), strict=True)
        return [(self._prepared(images_BCHW), without_padding(tokens_BT, self._device)) for images_BCHW, tokens_BT in parts]

    def _prepared(self, images_BCHW: Tensor) -> Tensor:
        images_BCHW = normalize(images_BCHW.to(self._device), self._mean, self._std)
        return images_BCHW.contiguous(memory_format=torch.channels_last)


class AgreementWatch:
    """Measures and reports the agreement during a stage, on worker 0; warns when it is worse than at the start."""

    def __init__(
        self,
        spec: JobSpec,
        stage: Stage,
        student: LoadedModel,
        teachers: Sequence[FrozenTeacher],
        device: torch.device,
        events: EventWriter,
    ) -> None:
        """`student` has the tokenizer and the color normalization; `teachers` are one or more, on the device."""
        self._spec, self._stage, self._student, self._events = spec, stage, student, events
        self._teachers, self._device = teachers, device
        self._start: float | None = None
        self._warned = False

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, to be given to `restore`."""
        return {"start": self._start, "warned": self._warned}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue from a checkpoint's `state`. Checkpoints of older versions have none: the next measurement is the first."""
        if state is not None:
            self._start, self._warned = state["start"], state["warned"]

    def begin(self, learner: StageLearner, step: int) -> None:
        """Measure the student before its first step: at the start of the stage, and after the cut of an automatic stage."""
        self._start, self._warned = None, False
        self._measure(learner, step)

    def after_step(self, learner: StageLearner, step: int) -> None:
        """Measure after some of the steps: every `evaluation.every_steps`, else at ten even intervals. The last is `end`'s."""
        every, steps = self._spec.evaluation.every_steps, self._stage.steps
        due = step % every == 0 if every else step * MEASUREMENTS // steps > (step - 1) * MEASUREMENTS // steps
        if due and step < steps:
            self._measure(learner, step)

    def end(self, learner: StageLearner) -> None:
        """Measure the student after the last step."""
        self._measure(learner, self._stage.steps)

    def kl(self, model: Model) -> float | None:
        """Return the divergence of a model, without a report; `None` if there are too few pairs."""
        return None if self._agreement is None else self._agreement.kl(model)

    @cached_property
    def _agreement(self) -> TeacherAgreement | None:
        tokenize = SingleTextTokenizer(self._student.tokenizer)
        pairs = read_pairs(self._spec.data, self._stage.layout.image.image_size, tokenize)
        if pairs is None:
            log.warning("agreement with the teacher is not measured: no two usable held-out pairs in %d samples", MAX_READ)
            return None
        colors = {"mean": self._student.image_mean, "std": self._student.image_std}
        return TeacherAgreement(pairs, self._teachers, self._device, **colors)

    def _measure(self, learner: StageLearner, step: int) -> None:
        kl = self.kl(learner.folded_model()[0])
        if kl is None or (self._start is None and not math.isfinite(kl)):
            return
        self._start = kl if self._start is None else self._start
        assert self._agreement is not None
        pairs = self._agreement.pairs
        if math.isfinite(kl):
            self._events.send(
                "agreement.measured",
                stage=self._stage.index,
                data={"step": step, "kl": kl, "start_kl": self._start, "pairs": len(pairs.tokens_NT), "held_out": pairs.held_out},
                message=f"KL to the teacher {kl:.4f} at step {step} of stage {self._stage.name}",
            )
        # A search removes units on purpose, and an objective without a teacher need not agree with one.
        compared = learner.search is None and bool(self._stage.objective.teacher_terms())
        is_worse = compared and not kl <= WORSE * self._start + SLACK  # also if it is not a number
        if is_worse and not self._warned:
            self._warn(kl, step)
        self._warned = is_worse

    def _warn(self, kl: float, step: int) -> None:
        assert self._start is not None
        self._events.send(
            "agreement.worse",
            stage=self._stage.index,
            data={"step": step, "kl": kl if math.isfinite(kl) else None, "start_kl": self._start},
            message=(
                f"stage {self._stage.name} agrees less with its teacher than at its start: KL {kl:.4f} at step {step}, "
                f"{self._start:.4f} at the start; lower optimizer.lr (now {self._stage.optimizer.lr:g}) "
                f"or lengthen optimizer.warmup_steps (now {self._stage.optimizer.warmup_steps})"
            ),
        )


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
