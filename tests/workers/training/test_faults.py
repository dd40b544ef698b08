"""Faults of the published code that stay fixed, if no other file tests them; docs/method.md lists all of them."""

import gc
import re
from pathlib import Path

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Layout
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.trainer import StageTrainer, StepResult
from torch import Tensor

from tests.workers.auto_stages import PRUNE_STEP, auto, batches_of, spec_of, trainer_of, weights
from tests.workers.shapes_data import write_shards

TESTS = Path(__file__).parents[2]
METHOD = TESTS.parent / "docs" / "method.md"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def resumed(shards: str, tmp_path: Path) -> StageTrainer:
    """A trainer restored from a checkpoint of the prune step."""
    trainer, store = trainer_of(spec_of(shards, auto(0.5))), ArtifactsStore(str(tmp_path))
    batch = next(batches_of(trainer))
    for _ in range(3):
        trainer.train_step(batch)
    assert trainer.learner.prune_if_due(PRUNE_STEP)
    trainer.step = PRUNE_STEP
    save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())
    other, checkpoint = trainer_of(trainer.spec), latest_checkpoint(store, "stage")
    assert checkpoint is not None
    other.restore(checkpoint)
    return other


def test_what_is_resumed_after_the_prune_step_trains_every_tensor(resumed: StageTrainer) -> None:
    """F3: of the reference's 158 tensors none changed."""
    before = weights(resumed)

    resumed.train_step(next(batches_of(resumed)))

    learned = {name for name, parameter in resumed.student.named_parameters() if parameter.requires_grad}
    after = weights(resumed)
    assert {name for name, tensor in before.items() if torch.equal(tensor, after[name])} == before.keys() - learned
    assert before.keys() - learned == {"logit_scale"}


def test_a_checkpoint_after_the_prune_step_holds_every_tensor_once(resumed: StageTrainer) -> None:
    """F13."""
    tensors = resumed.learner.tensors()

    assert tensors.keys() == {"model", "optimizer"}
    assert tensors["model"].keys() == Clip(resumed.learner.layout).state_dict().keys()
    assert len({tensor.data_ptr() for tensor in tensors["model"].values()}) == len(tensors["model"])


def test_a_fixed_temperature_holds_from_the_first_step_and_is_outside_the_clip_norm(shards: str) -> None:
    """F8 and F18: the reference's first step is at 1 / 0.07, and the gradient of what it overwrites counts."""
    trainer = trainer_of(spec_of(shards, auto(0.5), temperature={"student": 50}))

    seen = trainer.student.logit_scale.exp().item()
    trainer.train_step(next(batches_of(trainer)))

    assert seen == trainer.student.logit_scale.exp().item() == pytest.approx(50)
    assert trainer.student.logit_scale.grad is None


def test_a_search_keeps_nothing_of_the_steps_behind_it(shards: str) -> None:
    """F14: the reference's metrics keep the graph of every step of a search."""
    trainer, results, alive = trainer_of(spec_of(shards, auto(0.5))), list[StepResult](), []
    batch = next(batches_of(trainer))

    for _ in range(3):
        results.append(trainer.train_step(batch)[0])
        gc.collect()
        alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))

    assert alive[1] == alive[-1]
    for result in results:
        numbers = [result.loss, result.lr, result.grad_norm, *result.terms.values(), *result.sparsity.values()]
        assert all(type(number) is float for number in numbers)


def test_towers_may_differ_in_head_width_picture_size_and_context() -> None:
    """F12: 224 pixels, 77 tokens and, for both towers, the text tower's head width are written into the reference."""
    student = StudentSpec.model_validate(
        {
            "embed_dim": 12,
            "image": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 24},
            "text": {"layers": 2, "width": 24, "heads": 3, "context_length": 9, "vocab_size": 49408},
        }
    )
    clip = Clip(resolve_layout(student, None))
    for parameter in clip.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    towers = masked(clip, clip.layout, seed=1)

    once = towers.folded_model()
    again = masked(once, clip.layout, seed=2)
    twice = again.folded_model()

    assert (twice.layout.image.head_width, twice.layout.text.head_width) == (16, 8)
    images, tokens = torch.randn(2, 3, 24, 24), torch.tensor([[5, 9, 49407, 0, 0, 0, 0, 0, 0], [7, 1, 2, 3, 4, 5, 6, 8, 49407]])
    for small, large in ((once, towers), (twice, again)):
        wanted = large(images, tokens)
        for found, of_masks in zip((small.encode_image(images), small.encode_text(tokens)), wanted, strict=False):
            torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), of_masks, rtol=1e-5, atol=1e-5)


def masked(clip: Clip, original: Layout, seed: int) -> MaskedTowers:
    torch.manual_seed(seed)
    towers = MaskedTowers(clip, original, ("image", "text"), Constraint(0.0, 0.5, 0))
    with torch.no_grad():
        for masks in towers.tower_masks().values():
            for loga in masks.loga().values():
                loga.uniform_(-2, 4)
    return towers


def test_the_table_of_faults_names_tests_that_are_there() -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)::(?:\w+::)?(\w+)`", METHOD.read_text())

    assert len(named) > 19
    for file, test in named:
        assert f"def {test}(" in (TESTS / "workers" / file).read_text(), f"{file}::{test}"
