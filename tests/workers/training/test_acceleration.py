"""Checkpointing, compilation and fast kernels give the same student as without them."""

from collections import Counter
from typing import Any

import pytest
import torch
from tinyclip_workers.model.precision import exact
from tinyclip_workers.training import acceleration
from tinyclip_workers.training.acceleration import fast_kernels
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.auto_stages import STUDENT, all_tensors, auto, batches_of, equal, spec_of, train, trainer_of
from tests.workers.shapes_data import write_shards

MANUAL = {"name": "manual", "inherit": "manual", "student": STUDENT.model_dump(exclude_none=True), "train": {"steps": 3}}
MASKED = {**auto(0.5, prune_step=2), "train": {"steps": 3}}
STAGES = pytest.mark.parametrize("stage", [MANUAL, MASKED], ids=["open_clip", "masked"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shapes"))


def computed_blocks(trainer: StageTrainer) -> int:
    """Return how often a block's MLP is computed in one step."""
    calls: Counter[str] = Counter()
    for name, module in trainer.student.named_modules():
        if name.endswith("mlp"):
            module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    trainer.train_step(next(batches_of(trainer)))
    return sum(calls.values()) // len(calls)


class TestGradientCheckpointing:
    @STAGES
    @pytest.mark.parametrize(("micro_batch", "precision"), [(None, "fp32"), (3, "fp32"), (None, "bf16")])
    def test_the_student_is_the_same_bit_for_bit(
        self, shards: str, stage: dict[str, Any], micro_batch: int | None, precision: str
    ) -> None:
        changes = {"micro_batch": micro_batch, "precision": precision}
        specs = [spec_of(shards, stage, gradient_checkpointing=on, **changes) for on in (False, True)]

        without, with_it = (all_tensors(train(trainer_of(spec))) for spec in specs)

        assert equal(without, with_it)

    @STAGES
    def test_every_block_is_computed_again(self, shards: str, stage: dict[str, Any]) -> None:
        specs = [spec_of(shards, stage, gradient_checkpointing=on) for on in (False, True)]

        assert [computed_blocks(trainer_of(spec)) for spec in specs] == [1, 2]


class TestCompilation:
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, as it captures
    @STAGES
    def test_the_student_is_the_same_up_to_rounding(
        self, shards: str, stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(acceleration, "BACKEND", "aot_eager")  # what is captured, without generated code
        losses: dict[bool, list[float]] = {False: [], True: []}
        for compiled, found in losses.items():
            trainer = trainer_of(spec_of(shards, stage, compile=compiled, gradient_checkpointing=compiled))
            train(trainer, progress=lambda result, found=found: found.append(result.loss))

        assert losses[True] == pytest.approx(losses[False], rel=1e-5)


class TestFastKernels:
    @pytest.mark.parametrize(
        ("precision", "kernels"), [("fp32", ("highest", False)), ("bf16", ("high", True)), ("auto", ("high", True))]
    )
    def test_only_fp32_is_exact_and_evaluations_always_are(self, precision: str, kernels: tuple[str, bool]) -> None:
        before = kernels_now()
        with fast_kernels(precision, torch.device("cuda")):
            inside, benchmark = kernels_now(), torch.backends.cudnn.benchmark
            with exact():
                evaluating = kernels_now()
            again = kernels_now()

        assert (inside, again, benchmark) == (kernels, kernels, True)
        assert evaluating == ("highest", False)
        assert (kernels_now(), torch.backends.cudnn.benchmark) == (before, False)

    def test_a_cpu_computes_as_before(self) -> None:
        before = kernels_now()

        with fast_kernels("bf16", torch.device("cpu")):
            assert kernels_now() == before


def kernels_now() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
