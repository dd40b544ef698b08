"""The watch over a stage on worker 0: it measures the agreement with the teacher, reports it, and compares averaged weights."""

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import OptimizerSpec

from tinyclip_workers.data.stream.inputs import SingleTextTokenizer, TextInput
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.towers import Model, trims_padding
from tinyclip_workers.model.transfer import on_device
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.observation.agreement import MAX_READ, TeacherAgreement, is_worse, read_pairs
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.teachers.inputs import InputPreparation

MEASUREMENTS = 10
"""Measurements of a stage, if the spec has no `evaluation.every_steps`; the last one is at its end."""

log = logging.getLogger(__name__)


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
        """`student` has the tokenizer and the color normalization; `teachers` are one or more, on any device."""
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

    def end(self, learner: StageLearner) -> Model:
        """Measure the student after the last step; returns the model to export.

        It has the averaged weights if they agree better with the teacher than the last ones, else the last ones.
        """
        model, _ = learner.folded_model()
        kl = self.kl(model)
        if kl is not None and learner.average is not None:
            averaged = learner.average.averaged(model)
            averaged_kl = self.kl(averaged)
            assert averaged_kl is not None  # there are pairs
            is_better = math.isfinite(averaged_kl) and not kl <= averaged_kl
            self._report_average(kl, averaged_kl, "averaged" if is_better else "last")
            model, kl = (averaged, averaged_kl) if is_better else (model, kl)
        self._report(kl, self._stage.steps, learner)
        return model

    def kl(self, model: Model) -> float | None:
        """Return the divergence of a model, without a report; `None` if there are too few pairs."""
        return None if self._agreement is None else self._agreement.kl(model)

    @cached_property
    def _agreement(self) -> TeacherAgreement | None:
        student, readings = self._student, [teacher.reading for teacher in self._teachers]
        colors = student.image_mean, student.image_std
        prepare = InputPreparation(colors, readings, self._spec.data.train.augment, self._device)
        text = TextInput(SingleTextTokenizer(student.tokenizer), trims_padding(student.model))
        pairs = read_pairs(self._spec.data, self._stage.layout.image_size, text, prepare.teacher_inputs)
        if pairs is None:
            log.warning("agreement with the teacher is not measured: no two usable held-out pairs in %d samples", MAX_READ)
            return None
        with on_device([teacher.towers for teacher in self._teachers], self._device):
            return TeacherAgreement(pairs, self._teachers, prepare, trims=text.trims)

    def _measure(self, learner: StageLearner, step: int) -> None:
        self._report(self.kl(learner.folded_model()[0]), step, learner)

    def _report(self, kl: float | None, step: int, learner: StageLearner) -> None:
        if kl is None or (self._start is None and not math.isfinite(kl)):
            return
        self._start = kl if self._start is None else self._start
        assert self._agreement is not None
        pairs = self._agreement.pairs
        if math.isfinite(kl):
            self._events.send(
                "agreement.measured",
                stage=self._stage.index,
                data={"step": step, "kl": kl, "start_kl": self._start, "pairs": len(pairs), "held_out": pairs.held_out},
                message=f"KL to the teacher {kl:.4f} at step {step} of stage {self._stage.name}",
            )
        # A search removes units on purpose, and an objective without a teacher need not agree with one.
        compared = learner.search is None and bool(self._stage.objective.teacher_terms())
        warn = compared and is_worse(kl, self._start)
        if warn and not self._warned:
            self._warn(kl, step, learner.stage.optimizer)
        self._warned = warn

    def _report_average(self, kl: float, averaged_kl: float, exported: str) -> None:
        numbers = {name: x if math.isfinite(x) else None for name, x in (("kl", kl), ("averaged_kl", averaged_kl))}
        self._events.send(
            "average.compared",
            stage=self._stage.index,
            data={**numbers, "exported": exported},
            message=(
                f"stage {self._stage.name} exports its {exported} weights: "
                f"KL to the teacher {averaged_kl:.4f} averaged, {kl:.4f} last"
            ),
        )

    def _warn(self, kl: float, step: int, optimizer: OptimizerSpec) -> None:
        assert self._start is not None
        self._events.send(
            "agreement.worse",
            stage=self._stage.index,
            data={"step": step, "kl": kl if math.isfinite(kl) else None, "start_kl": self._start},
            message=(
                f"stage {self._stage.name} agrees less with its teacher than at its start: KL {kl:.4f} at step {step}, "
                f"{self._start:.4f} at the start; lower optimizer.lr (now {optimizer.lr}) "
                f"or lengthen optimizer.warmup_steps (now {optimizer.warmup_steps})"
            ),
        )
