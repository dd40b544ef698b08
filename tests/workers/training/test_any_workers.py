"""Training does not depend on the number of workers, nor on its changes: the same batches, the same losses, the same student."""

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.training.checkpoints import Checkpoint
from tinyclip_workers.training.trainer import StageTrainer
from torch import Tensor

from tests.workers.auto_stages import auto, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

BATCH = 12
AUGMENT = {"crop_scale": [0.5, 1.0], "degrees": 15, "color_jitter": 0.3, "gray": 0.2, "horizontal_flip": 0.5}


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return write_shards(tmp_path, shards=3, pairs=30)


State = dict[str, Any] | None


def trained(rank: int, workers: int, shards: str, processes: int, steps: int, state: State) -> dict[str, Any]:
    """Train from a state on, as one of several workers; returns losses, samples (S, B) of this worker and the state after it.

    In fp64: Adam enlarges the rounding of fp32, which would hide what is compared here.
    """
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # all that the step casts to fp32
    train = {"shards": shards, "caption_key": "json.captions", "augment": AUGMENT}
    stage = {"name": "plain", "student": {"text": {}}, "train": {"steps": 10_000}}
    spec = spec_of(shards, stage, batch_size=BATCH, data={"train": train}, optimizer={"lr": 3e-4, "warmup_steps": 10})
    trainer = trainer_of(spec)
    if state is not None:
        state = copy.deepcopy(state)  # the processes share the memory of their arguments
        trainer.restore(Checkpoint("", state["tensors"], state["state"]))
    losses, samples = [], []
    for batch in islice(iter(BatchLoader(stream_of(trainer, rank, workers), processes)), steps):
        samples.append(batch.samples_B)
        losses.append(trainer.train_step(replace(batch, views_BP=batch.views_BP.double()))[0].loss)
    tensors = {name: {key: value.clone() for key, value in group.items()} for name, group in trainer.learner.tensors().items()}
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "samples": torch.stack(samples),
        "after": {"tensors": tensors, "state": {**trainer.state(), "step": trainer.step}},
    }


def stream_of(trainer: StageTrainer, rank: int, workers: int) -> PairStream:
    return PairStream(
        trainer.spec.data,
        index_shards(trainer.spec.data.train),
        batch_size=BATCH,
        image_size=32,
        tokenize=SingleTextTokenizer(make_tokenizer(trainer.stage.layout)),
        seed=0,
        rank=rank,
        world_size=workers,
        start=trainer.position,
    )


def by(workers: int, shards: str, processes: int, steps: int, state: State = None) -> dict[str, Any]:
    """Train with that many workers; returns losses, samples (S, N) of all workers together, and the state."""
    found = on_workers(workers, trained, workers, shards, processes, steps, state)
    return {**found[0], "samples": torch.cat([each["samples"] for each in found], dim=1)}


@pytest.mark.long
@pytest.mark.parametrize(("workers", "processes"), [(2, 1), (3, 1), (4, 0)])
def test_losses_are_those_of_one_worker(shards: str, workers: int, processes: int) -> None:
    steps = 200
    alone, together = trained_alone(shards, steps), by(workers, shards, processes, steps)

    assert torch.equal(together["samples"], alone["samples"])
    torch.testing.assert_close(together["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert alone["losses"][-20:].mean() < alone["losses"][:20].mean()


def test_a_group_that_shrinks_and_grows_continues_with_the_next_batch(shards: str) -> None:
    alone = trained_alone(shards, 20)

    state, samples, losses = None, list[Tensor](), list[Tensor]()
    for workers, steps in ((4, 8), (2, 5), (3, 7)):  # an epoch has 7
        part = by(workers, shards, 0, steps, state)
        samples.append(part["samples"])
        losses.append(part["losses"])
        state = part["after"]

    assert torch.equal(torch.cat(samples), alone["samples"])  # none is skipped, none is repeated
    torch.testing.assert_close(torch.cat(losses), alone["losses"], rtol=0, atol=1e-5)
    assert state is not None
    assert state["state"]["position"] == DataPosition(2, 6).to_json(BATCH)
    for name, weights in state["tensors"]["model"].items():
        torch.testing.assert_close(weights, alone["after"]["tensors"]["model"][name], rtol=0, atol=1e-8, msg=name)


def trained_alone(shards: str, steps: int) -> dict[str, Any]:
    return by(1, shards, 0, steps)


def test_masks_draw_the_same_noise_on_all_workers(shards: str) -> None:
    noises = []
    for _ in range(2):
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        noises.append(trainer.learner.noise(trainer._mask_seed()))

    assert repr(noises[0]) == repr(noises[1])
