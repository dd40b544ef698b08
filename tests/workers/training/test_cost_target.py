"""Automatic stages whose target is a cost, and that keep some blocks only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Layout
from tinyclip_workers.costs.student_cost import layout_cost
from tinyclip_workers.model.layouts import ImpossibleStudent
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.stage import Stage, resolve_stage
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.auto_stages import PRUNE_STEP, STEPS, TEACHER, calibrated_trainer, equal, spec_of, train, trainer_of, weights
from tests.workers.shapes_data import write_shards

PARAMS = summarize(TEACHER).image_params + summarize(TEACHER).text_params
BY_MASKS = {"prune_step": PRUNE_STEP, "sparsity_warmup": 1}
COEFFICIENTS = {"calls": 0.1, "blocks": 0.2, "products": 1e-5, "attention": 1e-5, "channel_values": 1e-5}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shapes")
    write_shards(folder)
    return f"{folder}/train-*.tar"


def stage_of(**prune: Any) -> dict[str, Any]:
    return {"name": "cut", "inherit": "auto", "prune": prune, "train": {"steps": STEPS if "prune_step" in prune else 2}}


def layout_of(trainer: StageTrainer) -> Layout:
    layout = trainer.learner.layout
    assert isinstance(layout, Layout)
    return layout


@pytest.mark.parametrize("prune", [{}, {"search": "frozen", **BY_MASKS}, {"search": "joint", **BY_MASKS}])
def test_the_student_has_at_most_the_parameters_of_the_target(shards: str, prune: dict[str, Any]) -> None:
    """Most of them are token embeddings, which `target_sparsity` does not count."""
    trainer = calibrated_trainer(spec_of(shards, stage_of(target={"params": PARAMS // 2}, **prune)))

    train(trainer)

    student = summarize(layout_of(trainer))
    assert 0.95 * (PARAMS // 2) < student.image_params + student.text_params <= PARAMS // 2
    assert trainer.learner.sparsity() == pytest.approx(0.5, abs=0.06)


def test_a_latency_prunes_its_tower_only(shards: str) -> None:
    target = {"latency_ms": 1.0, "coefficients": COEFFICIENTS}
    spec = spec_of(shards, stage_of(target=target))
    prune = spec.stages[0].prune
    assert prune is not None
    assert prune.target is not None
    full = layout_cost(prune.target)(TEACHER)
    spec = spec_of(shards, stage_of(target={**target, "latency_ms": 0.75 * full}))

    layout = layout_of(train(calibrated_trainer(spec)))

    assert layout.text == TEACHER.text
    assert 0.65 * full < layout_cost(prune.target)(layout) <= 0.75 * full


@pytest.mark.parametrize("search", [{}, {"search": "joint", **BY_MASKS}])
def test_blocks_are_selected_before_the_search(shards: str, search: dict[str, Any]) -> None:
    trainer = calibrated_trainer(spec_of(shards, stage_of(target={"params": PARAMS // 2}, layers={"image": 1}, **search)))
    start = trainer.stage.layout
    assert isinstance(start, Layout)
    assert (start.image.layers, start.text) == ([1], TEACHER.text)

    layout = layout_of(train(trainer))

    student = summarize(layout)
    assert layout.image.layers == [1]
    assert 0.9 * (PARAMS // 2) < student.image_params + student.text_params <= PARAMS // 2


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(shards: str, tmp_path: Path) -> None:
    prune = {"search": "joint", "target": {"macs": summarize(TEACHER).macs // 2}, **BY_MASKS}
    store, spec = ArtifactsStore(str(tmp_path)), spec_of(shards, stage_of(**prune), checkpoint={"every_steps": 9, "keep": 1})
    whole = train(trainer_of(spec))

    def save_and_stop(trainer: StageTrainer) -> None:
        save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trainer_of(spec), checkpoint=save_and_stop)
    checkpoint = latest_checkpoint(store, "stage")
    assert checkpoint is not None
    second = trainer_of(spec)
    second.restore(checkpoint)
    train(second)

    assert equal(weights(whole), weights(second))
    assert summarize(layout_of(second)).macs <= summarize(TEACHER).macs // 2


def test_a_stage_with_a_target_survives_json(shards: str) -> None:
    target = {"latency_ms": 1.0, "coefficients": COEFFICIENTS}
    stage = resolve_stage(spec_of(shards, stage_of(target=target, layers={"image": 1})), 0, TEACHER, None, 96)

    assert Stage.from_json(stage.to_json()) == stage


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"target": {"params": 100}}, "prune.target.params: cannot be met"),
        ({"target": {"latency_ms": 1.0}}, "prune.target.coefficients: no coefficients"),
    ],
)
def test_a_target_that_cannot_be_met_is_an_error(shards: str, prune: dict[str, Any], message: str) -> None:
    with pytest.raises(ImpossibleStudent, match=message):
        trainer_of(spec_of(shards, stage_of(**prune)))


def test_more_blocks_than_the_parent_has_are_an_error(shards: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ImpossibleStudent, match=r"prune.layers.text: is more than the 1 blocks"):
        resolve_stage(spec_of(shards, stage_of(target={"params": PARAMS // 2}, layers={"text": 2})), 0, TEACHER, None, 96)
