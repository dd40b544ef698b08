"""`precision: auto` takes the faster of fp32 and bf16, on all workers and for as long as a stage lasts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.precision import precision_of
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training.auto_settings import precision
from tinyclip_workers.training.auto_settings.precision import PrecisionTest, Seconds, compare, measure_precision
from tinyclip_workers.training.checkpoints import Checkpoint
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import RESNET, TEXT, all_tensors, auto, batches_of, equal, hooks, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

STEPS = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


def masked(shards: str, **changes: Any) -> JobSpec:
    stage = {**auto(0.5, prune_step=2), "train": {"steps": STEPS}}
    return spec_of(shards, stage, **{"precision": "auto", **changes})


def resnet(shards: str, **changes: Any) -> JobSpec:
    """Batch normalisation, and embeddings of another size than the teacher's."""
    student = {"embed_dim": 12, "image": RESNET, "text": TEXT}
    stage = {"name": "resnet", "inherit": "none", "student": student, "train": {"steps": STEPS}}
    objective = {"affinity": 1, "feature_mimicry": 1}
    return spec_of(shards, stage, objective=objective, **{"precision": "auto", **changes})


SPECS: dict[str, Callable[..., JobSpec]] = {"masked": masked, "resnet": resnet}


def linear(fp32: float, bf16: float) -> Seconds:
    """Steps that take that many seconds a pair."""
    return lambda name, pairs: pairs * {"fp32": fp32, "bf16": bf16}[name]


def taking(monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> None:
    monkeypatch.setattr(precision, "_timed_step", lambda trainer, batch: linear(fp32, bf16))


class TestComparison:
    def calls(self, most: int, seconds_of: Seconds) -> tuple[list[tuple[str, int]], tuple[int, dict[str, float]]]:
        made: list[tuple[str, int]] = []

        def noted(name: str, pairs: int) -> float:
            made.append((name, pairs))
            return seconds_of(name, pairs)

        return made, compare(noted, most)

    def test_the_batch_grows_until_a_step_takes_long_enough(self) -> None:
        calls, (pairs, seconds) = self.calls(1000, linear(0.005, 0.002))

        assert pairs == 128  # 32 pairs take 0.22 seconds, in both
        assert seconds == {"fp32": pytest.approx(0.64), "bf16": pytest.approx(0.256)}
        assert [size for _, size in calls[::2]] == [8, 8, 32, 32, 128, 128, 128, 128, 128]
        assert [name for name, _ in calls] == ["fp32", "bf16"] * 9

    @pytest.mark.parametrize("most", [1, 5, 20])
    def test_it_grows_to_what_a_worker_encodes_at_once(self, most: int) -> None:
        calls, (pairs, _) = self.calls(most, linear(1e-5, 1e-5))

        assert pairs == most == max(size for _, size in calls)

    def test_a_large_model_takes_few_steps(self) -> None:
        calls, (pairs, seconds) = self.calls(1000, linear(1, 2))

        assert pairs == 8
        assert calls == [("fp32", 8), ("bf16", 8)]
        assert seconds == {"fp32": 8, "bf16": 16}

    def test_repetitions_end_in_time(self) -> None:
        calls, _ = self.calls(1000, linear(0.2, 0.3))

        assert [size for _, size in calls[::2]] == [8, 8, 8, 8]  # 4 seconds each, of which the first do not count

    def test_the_fastest_repetition_counts(self) -> None:
        times = iter([3, 3, 0.5, 0.9, 0.4, 0.8, 0.7, 0.3, 0.6, 0.6])

        assert compare(lambda name, pairs: next(times), 2) == (2, {"fp32": 0.4, "bf16": 0.3})


class TestChoice:
    @pytest.mark.parametrize(
        ("fp32", "bf16", "chosen"),
        [(0.10, 0.05, "bf16"), (0.10, 0.09, "bf16"), (0.10, 0.095, "fp32"), (0.10, 0.2, "fp32"), (float("inf"), 0.2, "bf16")],
    )
    def test_bf16_is_used_where_it_is_clearly_faster(
        self, monkeypatch: pytest.MonkeyPatch, shards: str, fp32: float, bf16: float, chosen: str
    ) -> None:
        taking(monkeypatch, fp32, bf16)
        trainer = trainer_of(masked(shards))

        assert measured(trainer).precision == chosen

    def test_it_is_described_with_both_times(self, monkeypatch: pytest.MonkeyPatch, shards: str) -> None:
        taking(monkeypatch, 0.034, 0.021)

        found = measured(trainer_of(masked(shards)))

        assert str(found) == "bf16 (fp32: 272.0 ms, bf16: 168.0 ms a step of 8 pairs)"
        assert str(PrecisionTest("fp32", {}, 0)) == "fp32: the GPU has no bf16"
        assert PrecisionTest.from_json(json.loads(json.dumps(found.to_json()))) == found

    def test_a_step_that_does_not_fit_into_memory_is_slower_than_any(self, monkeypatch: pytest.MonkeyPatch, shards: str) -> None:
        def step(self: Any, images: Any, *rest: Any) -> Any:
            if not torch.is_autocast_enabled("cpu"):
                raise torch.OutOfMemoryError
            return forward(self, images, *rest)

        trainer = trainer_of(masked(shards))
        forward = type(trainer.learner.towers).forward
        monkeypatch.setattr(type(trainer.learner.towers), "forward", step)

        found = measured(trainer)

        assert found.precision == "bf16"
        assert found.seconds["fp32"] == float("inf")
        assert PrecisionTest.from_json(json.loads(json.dumps(found.to_json()))) == found

    def test_no_more_pairs_are_encoded_than_in_training(self, monkeypatch: pytest.MonkeyPatch, shards: str) -> None:
        seen: list[int] = []
        trainer = trainer_of(masked(shards, micro_batch=3))
        forward = type(trainer.learner.towers).forward

        def noted(self: Any, images: Any, *rest: Any) -> Any:
            seen.append(len(images))
            return forward(self, images, *rest)

        monkeypatch.setattr(type(trainer.learner.towers), "forward", noted)
        monkeypatch.setattr(precision, "SUFFICIENT_SECONDS", 1e9)

        measured(trainer)

        assert max(seen) == 3


class TestNothingIsDisturbed:
    @pytest.mark.parametrize("kind", SPECS)
    def test_the_state_is_the_same_bit_for_bit(self, shards: str, kind: str) -> None:
        trainer = trainer_of(SPECS[kind](shards))
        batches = batches_of(trainer)  # a loader draws a seed
        before, state, random = ({n: t.clone() for n, t in all_tensors(trainer).items()}, trainer.state(), torch.get_rng_state())

        measure_precision(trainer, batches)

        assert equal(all_tensors(trainer), before)
        assert trainer.state() | {"precision": ""} == state | {"precision": ""}
        assert torch.equal(torch.get_rng_state(), random)
        assert all(parameter.grad is None for parameter in trainer.learner.towers.parameters())

    @pytest.mark.parametrize("kind", SPECS)
    def test_training_afterwards_is_training_without_it(self, shards: str, kind: str) -> None:
        plain, other = (trainer_of(SPECS[kind](shards, precision="fp32")) for _ in range(2))

        plain.run(batches_of(plain), hooks())
        _, batches = measure_precision(other, batches_of(other))
        other.run(batches, hooks())

        assert other.step == plain.step == STEPS
        assert equal(all_tensors(other), all_tensors(plain))


class TestResumption:
    def test_a_stage_continues_in_the_precision_of_its_checkpoint(self, shards: str) -> None:
        first, second = trainer_of(masked(shards)), trainer_of(masked(shards))
        first.precision = precision_of("bf16", torch.device("cpu"))

        second.restore(checkpoint_of(first))

        assert second.precision.name == "bf16"

    def test_a_given_precision_is_used_as_given(self, shards: str) -> None:
        trainer = trainer_of(masked(shards, precision="bf16"))

        trainer.restore(checkpoint_of(trainer_of(masked(shards, precision="fp32"))))

        assert trainer.precision.name == "bf16"

    def test_a_checkpoint_from_before_the_measurement_was_trained_in_fp32(self, shards: str) -> None:
        trainer, checkpoint = trainer_of(masked(shards)), checkpoint_of(trainer_of(masked(shards)))
        del checkpoint.state["precision"]

        trainer.restore(checkpoint)

        assert trainer.precision.name == "fp32"

    @pytest.mark.parametrize("steps", [4, 2], ids=["after a checkpoint", "before the first"])
    def test_an_interrupted_job_ends_as_if_it_had_not_been(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: int
    ) -> None:
        torch.set_num_threads(1)
        stage = {**auto(0.5, "whole", prune_step=6), "train": {"steps": 8}}
        changes = {"precision": "auto", "checkpoint": {"every_steps": 4, "keep": 1}}
        spec = JobSpec.model_validate(specs_in(tmp_path)(stage).model_dump() | changes)
        whole, broken = Job(tmp_path / "whole", spec), Job(tmp_path / "broken", spec)
        taking(monkeypatch, 0.2, 0.1)
        with no_cluster():
            assert whole.attempt()
        with no_cluster() as patch:
            polls = iter([Command.RUN] * steps)  # the next one raises an error
            patch.setattr("tinyclip_workers.runtime.control.ControlFile.poll", lambda self: next(polls))
            assert not broken.attempt(1)

        taking(monkeypatch, 0.1, 0.2)  # would select fp32
        with no_cluster():
            assert broken.attempt(2)

        assert equal(broken.weights(), whole.weights())
        assert [event["message"] for event in whole.events("precision.selected")] == [
            "stage whole trains in bf16 (fp32: 1,600.0 ms, bf16: 800.0 ms a step of 8 pairs)"
        ]
        assert any("to 8 in bf16 on cpu" in event["message"] for event in broken.events("log", 2))


def checkpoint_of(trainer: StageTrainer) -> Checkpoint:
    state = json.loads(json.dumps({**trainer.state(), "step": trainer.step}))
    return Checkpoint("", trainer.learner.tensors(), state)


def measured(trainer: StageTrainer) -> PrecisionTest:
    return measure_precision(trainer, batches_of(trainer))[0]


def chosen_by_worker(rank: int, shards: str) -> list[dict[str, Any]]:
    """Return what a worker chooses from timings that differ between workers, and from real ones."""
    found = []
    for mine in ([(0.2, 0.1), (0.2, 0.15)], [(0.2, 0.1), (0.2, 0.3)], [(0.3, 0.1), (0.1, 0.2)]):
        with pytest.MonkeyPatch.context() as patch:
            taking(patch, *mine[rank])
            found.append(measured(trainer_of(masked(shards))).to_json())
    return [*found, measured(trainer_of(resnet(shards))).to_json()]


def test_workers_agree_on_what_is_fastest_for_the_slowest(shards: str) -> None:
    first, second = on_workers(2, chosen_by_worker, shards)

    assert first == second
    assert [each["precision"] for each in first[:3]] == ["bf16", "fp32", "bf16"]
