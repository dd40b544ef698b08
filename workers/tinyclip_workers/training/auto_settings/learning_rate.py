"""`optimizer.lr: auto`: a test that selects the learning rate of a stage before its weights are trained.

From the weights that the stage starts with, each rate trains for a few steps on the stage's first batches, with a fresh
optimizer, and the agreement with the teacher is measured. The largest rate is selected that is not worse than the best one, as
the warning during training defines it: few steps favour small rates, above all for students that start close to their teacher.
All workers take the steps, so these are the steps of the training itself; afterwards weights, data and random draws are as
before.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.model.towers import Model
from tinyclip_workers.training.checkpoints import Checkpoint
from tinyclip_workers.training.distributed import from_first_worker
from tinyclip_workers.training.observation.agreement import is_worse
from tinyclip_workers.training.trainer import StageTrainer

log = logging.getLogger(__name__)

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)


def steps_per_rate(steps: int) -> int:
    """Return the steps for each rate, of a stage of `steps`: about 2%, 5 to 20."""
    return min(steps, 20, max(5, steps // 50))


@dataclass(frozen=True)
class RateTest:
    """The selected rate, and the divergence from the teacher after the steps with each rate; infinite after a failure."""

    lr: float
    kls: dict[float, float]
    steps: int

    def __str__(self) -> str:
        return f"{', '.join(f'{kl:.4f} at {lr:g}' for lr, kl in self.kls.items())} after {self.steps} steps each"

    def to_json(self) -> dict[str, Any]:
        tested = [{"lr": lr, "kl": kl if math.isfinite(kl) else None} for lr, kl in self.kls.items()]
        return {"lr": self.lr, "tested": tested, "steps": self.steps}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RateTest":
        kls = {each["lr"]: math.inf if each["kl"] is None else each["kl"] for each in data["tested"]}
        return cls(data["lr"], kls, data["steps"])


def select_rate(
    trainer: StageTrainer, batches: Iterator[Batch], kl: Callable[[Model], float | None] | None
) -> tuple[RateTest, Iterator[Batch]]:
    """Test the rates; returns the selected one and batches that start where `batches` did. Collective.

    `kl` is given on worker 0: it measures a model, or returns None if there is nothing to measure on. Raises DataError, on all
    workers, in that case.
    """
    steps = steps_per_rate(trainer.stage.steps - trainer.step)
    used = list(itertools.islice(batches, steps))
    start = _copy_of(trainer)
    kls: dict[float, float] = {}
    for rate in RATES:
        _train(trainer, used, rate)
        found = from_first_worker(kl(trainer.student) if kl is not None else None)
        trainer.restore(start)
        if found is None:
            message = (
                "optimizer.lr: auto compares rates by the agreement with a teacher on held-out pairs, and there are none; "
                "raise data.train.holdout, or give a number for optimizer.lr"
            )
            raise DataError(message, field="data.train.holdout", value=trainer.spec.data.train.holdout)
        kls[rate] = found if math.isfinite(found) else math.inf
        log.info("lr %g: KL to the teacher %.4f after %d steps", rate, found, steps)
    return RateTest(best_rate(kls), kls, steps), itertools.chain(used, batches)


def best_rate(kls: dict[float, float]) -> float:
    """Return the largest rate that is not worse than the best one; the smallest rate if all have failed."""
    best = min(kls.values())
    return max((rate for rate, kl in kls.items() if kl < math.inf and not is_worse(kl, best)), default=min(kls))


def _train(trainer: StageTrainer, batches: Sequence[Batch], rate: float) -> None:
    """Train at a rate that is reached in a line over the first half of the steps, if the stage has a warm-up at all."""
    warmup = min(trainer.stage.optimizer.warmup_steps, len(batches) // 2)
    for number, batch in enumerate(batches, start=1):
        trainer.learner.lr = rate * min(1.0, number / max(1, warmup))
        trainer.train_step(batch)
    trainer.learner.lr = None


def _copy_of(trainer: StageTrainer) -> Checkpoint:
    tensors = trainer.tensors()
    copies = {kind: {name: tensor.clone() for name, tensor in named.items()} for kind, named in tensors.items()}
    return Checkpoint("", copies, {**trainer.state(), "step": trainer.step})
