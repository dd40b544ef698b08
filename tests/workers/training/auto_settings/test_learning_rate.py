"""`optimizer.lr: auto`: which rate is selected, that the test leaves no trace, and that a stage is tested once."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import OptimizerSpec
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.model.towers import Model
from tinyclip_workers.training.auto_settings.learning_rate import RATES, RateTest, best_rate, select_rate, steps_per_rate
from tinyclip_workers.training.distributed import from_first_worker
from tinyclip_workers.training.observation.watch import AgreementWatch
from tinyclip_workers.training.optimizer import learning_rate
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import RESNET, TEXT, all_tensors, batches_of, equal, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

AUTO = {"lr": "auto", "warmup_steps": 2}
STAGE = {"name": "same", "student": {"text": {}}, "train": {"steps": 6}}
RESNET_STAGE = {**STAGE, "inherit": "none", "student": {"embed_dim": 16, "image": RESNET, "text": TEXT}}
STORED = RateTest(3e-4, dict.fromkeys(RATES, 0.5), 5).to_json()


class TestChoice:
    def test_the_largest_rate_that_is_as_good_as_the_best_is_selected(self) -> None:
        assert best_rate({1e-4: 0.5, 3e-4: 0.4, 1e-3: 0.41, 3e-3: 0.6}) == 1e-3

    def test_close_to_the_teacher_a_hundredth_more_is_as_good(self) -> None:
        assert best_rate({1e-4: 0.036, 3e-4: 0.039, 1e-3: 0.065}) == 3e-4

    def test_a_rate_that_fails_is_not_selected(self) -> None:
        assert best_rate({1e-4: 0.5, 3e-4: math.inf}) == 1e-4

    def test_if_all_fail_it_is_the_smallest(self) -> None:
        assert best_rate({1e-4: math.inf, 3e-4: math.inf}) == 1e-4

    def test_a_test_takes_a_tenth_of_a_long_stage_and_never_more_steps_than_the_stage(self) -> None:
        assert [steps_per_rate(steps) for steps in (3, 100, 600, 50_000)] == [3, 5, 12, 20]

    def test_no_step_is_taken_before_a_rate_is_selected(self) -> None:
        with pytest.raises(ValueError, match=r"optimizer\.lr is auto"):
            learning_rate(0, 10, OptimizerSpec(lr="auto"))


def marked(trainer: StageTrainer, best: float = 1e-3) -> Any:
    """Return a measure of a trainer's student that is smallest for the rate `best`; it checks that a test trains."""
    rates, start = iter(RATES), {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}

    def measure(model: Model) -> float:
        assert not equal(dict(model.state_dict()), start)
        return abs(math.log(next(rates) / best))

    return measure


def selected_and_trained(trainer: StageTrainer, measured: bool = True) -> dict[str, torch.Tensor]:
    """Select a rate, train four steps at it; returns all tensors of a checkpoint."""
    result, batches = select_rate(trainer, batches_of(trainer), marked(trainer) if measured else None)
    trainer.use_rate(result.lr)
    return trained(trainer, batches)


def trained(trainer: StageTrainer, batches: Iterator[Any]) -> dict[str, torch.Tensor]:
    for batch in itertools.islice(batches, 4):
        trainer.train_step(batch)
    return all_tensors(trainer)


def test_after_a_test_the_stage_is_trained_as_with_the_number_bit_for_bit(tmp_path: Path) -> None:
    shards, averaging = write_shards(tmp_path), {"averaging": {"decay": 0.5}}
    auto = trainer_of(spec_of(shards, RESNET_STAGE, optimizer=AUTO, **averaging))
    number = trainer_of(spec_of(shards, RESNET_STAGE, optimizer={**AUTO, "lr": 1e-3}, **averaging))

    found, wanted = selected_and_trained(auto), trained(number, batches_of(number))

    assert (auto.stage.optimizer.lr, auto.step) == (1e-3, 4)
    assert auto.position == number.position
    assert equal(found, wanted)


def test_rates_warm_up_as_the_stage_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(spec_of(write_shards(tmp_path), STAGE, optimizer=AUTO))
    rates, step = list[float](), StageTrainer.train_step

    def recorded(self: StageTrainer, *args: Any) -> Any:
        result = step(self, *args)
        rates.append(result[0].lr)
        return result

    monkeypatch.setattr(StageTrainer, "train_step", recorded)
    select_rate(trainer, batches_of(trainer), lambda model: 0.0)

    assert rates[:5] == pytest.approx([1.5e-5, 3e-5, 3e-5, 3e-5, 3e-5])
    assert rates[-1] == RATES[-1]
    assert len(rates) == 5 * len(RATES)


def test_without_pairs_to_compare_rates_on_the_error_names_the_field(tmp_path: Path) -> None:
    trainer = trainer_of(spec_of(write_shards(tmp_path), STAGE, optimizer=AUTO))

    with pytest.raises(DataError, match=r"raise data\.train\.holdout") as error:
        select_rate(trainer, batches_of(trainer), lambda model: None)

    assert error.value.field == "data.train.holdout"


def select_on(rank: int, shards: str) -> dict[str, torch.Tensor]:
    trainer = trainer_of(spec_of(shards, RESNET_STAGE, optimizer=AUTO))
    found = selected_and_trained(trainer, measured=rank == 0)
    return {"lr": torch.tensor(trainer.stage.optimizer.lr), "own": torch.tensor(from_first_worker(rank)), **found}


def test_all_workers_select_the_rate_of_worker_0_and_have_the_same_weights(tmp_path: Path) -> None:
    one, other = on_workers(2, select_on, write_shards(tmp_path))

    assert one["lr"] == torch.tensor(1e-3)
    assert other["own"] == 0
    assert equal(one, other)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    document: dict[str, Any] = specs_in(tmp_path_factory.mktemp("inputs"))(STAGE).model_dump()
    return JobSpec.model_validate(document | {"optimizer": AUTO, "checkpoint": {"every_steps": 3, "keep": 5}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, spec: JobSpec) -> Job:
    """A finished job."""
    job = Job(tmp_path_factory.mktemp("whole"), spec)
    with no_cluster():
        assert job.attempt()
    return job


class TestJob:
    @pytest.fixture(autouse=True)
    def patch(self) -> Iterator[pytest.MonkeyPatch]:
        with no_cluster() as patch:
            yield patch

    def test_the_rate_is_reported_used_and_kept(self, whole: Job) -> None:
        job = whole

        [event] = job.events("lr.selected")
        lr = event["data"]["lr"]
        assert [each["lr"] for each in event["data"]["tested"]] == list(RATES)
        assert event["data"] == json.loads(job.store.read_bytes("jobs/job_1/stages/0-same/lr.json"))
        assert event["message"].startswith(f"stage same trains with lr {lr:g}; KL to the teacher 0.")
        rates = {data["step"]: data["metrics"]["lr"] for data in (event["data"] for event in job.events("progress"))}
        assert rates[6] == pytest.approx(learning_rate(5, 6, OptimizerSpec(lr=lr, warmup_steps=2)))
        assert json.loads(job.store.read_bytes("jobs/job_1/stages/0-same/a1/step-3/state.json"))["lr"] == lr

    def test_a_stage_that_was_tested_is_not_tested_again(self, tmp_path: Path, spec: JobSpec) -> None:
        job = Job(tmp_path / "store", spec)
        job.store.write_bytes("jobs/job_1/stages/0-same/lr.json", json.dumps(STORED).encode())

        assert job.attempt()

        assert [event["data"] for event in job.events("lr.selected")] == [STORED]
        assert job.events("progress")[-1]["data"]["metrics"]["lr"] == pytest.approx(
            learning_rate(5, 6, OptimizerSpec(lr=3e-4, warmup_steps=2))
        )

    def test_a_stage_continues_from_a_checkpoint_with_its_rate_and_ends_with_the_same_student(
        self, tmp_path: Path, spec: JobSpec, whole: Job, patch: pytest.MonkeyPatch
    ) -> None:
        resumed = Job(tmp_path / "resumed", spec)
        folder = "jobs/job_1/stages/0-same/a1/step-3"
        for name in whole.store.list(folder):  # as a retry adopts it: the checkpoint alone
            resumed.store.write_bytes(f"{folder}/{name}", whole.store.read_bytes(f"{folder}/{name}"))
        patch.setattr(AgreementWatch, "begin", None)

        assert resumed.attempt(2)

        assert resumed.events("lr.selected", 2) == []
        assert equal(dict(resumed.weights()), dict(whole.weights()))
