"""Settings of a stage that are `auto`: tested once, before the stage's first step, and stored with the stage."""

from collections.abc import Callable, Iterator
from typing import Any

from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.model.precision import precision_of
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.auto_settings.learning_rate import RateTest, select_rate
from tinyclip_workers.training.auto_settings.micro_batch import MicroBatchTest, measure_micro_batch
from tinyclip_workers.training.auto_settings.precision import PrecisionTest, measure_precision
from tinyclip_workers.training.distributed import from_first_worker, rank
from tinyclip_workers.training.observation.watch import AgreementWatch
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.trainer import StageTrainer

Selected = tuple[RateTest | PrecisionTest | MicroBatchTest, Iterator[Batch]]


class AutoSettings:
    """The tests of one stage on one worker, with the event of each. All workers use the results of worker 0."""

    def __init__(self, run: JobAttempt, stage: Stage, events: EventWriter | None, watch: AgreementWatch | None) -> None:
        """`events` is given on worker 0, and `watch`, too, if there is a teacher."""
        self._run, self._stage, self._events, self._watch = run, stage, events, watch

    def select_precision(self, trainer: StageTrainer, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Set the precision of a stage with `precision: auto`; returns the batches to train on. Collective."""
        if trainer.spec.precision != "auto":
            return batches
        stored, batches = self._selected("precision", batches, lambda: measure_precision(trainer, batches))
        result = PrecisionTest.from_json(stored)
        trainer.precision = precision_of(result.precision, trainer.device)
        self._send("precision.selected", stored, f"trains in {result}")
        return batches

    def select_micro_batch(self, trainer: StageTrainer, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Set the parts of a stage with `micro_batch: auto`; returns the batches to train on. Collective."""
        if trainer.spec.micro_batch != "auto":
            return batches
        stored, batches = self._selected("micro_batch", batches, lambda: measure_micro_batch(trainer, batches))
        result = MicroBatchTest.from_json(stored)
        trainer.micro_batch = result.micro_batch
        self._send("micro_batch.selected", stored, f"processes {result}")
        return batches

    def select_rate(self, trainer: StageTrainer, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Set the rate of a stage with `lr: auto`; returns the batches to train on. Collective."""
        if trainer.stage.optimizer.lr != "auto" or trainer.learner.search is not None:
            return batches
        kl = self._watch.kl if self._watch else None
        stored, batches = self._selected("lr", batches, lambda: select_rate(trainer, batches, kl))
        result = RateTest.from_json(stored)
        trainer.use_rate(result.lr)
        self._send("lr.selected", stored, f"trains with lr {result.lr:g}; KL to the teacher {result}")
        return batches

    def _selected(
        self, setting: str, batches: Iterator[Batch], test: Callable[[], Selected]
    ) -> tuple[dict[str, Any], Iterator[Batch]]:
        """Return the result that was stored before, else that of a test, and the batches to train on. Collective."""
        index, own = self._stage.index, self._run.selection(self._stage.index, setting) if rank() == 0 else None
        stored = from_first_worker(own)
        if stored is None:
            found, batches = test()
            if rank() == 0:
                self._run.keep_selection(index, setting, found.to_json())
                own = self._run.selection(index, setting)  # an earlier attempt that still runs may have been the first
            stored = from_first_worker(own)
        assert stored is not None
        return stored, batches

    def _send(self, event: str, data: dict[str, Any], message: str) -> None:
        if self._events:
            self._events.send(event, stage=self._stage.index, data=data, message=f"stage {self._stage.name} {message}")
