"""`micro_batch: auto` takes the largest part of a batch that fits, on all workers and for as long as a stage lasts."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.training.auto_settings import micro_batch
from tinyclip_workers.training.auto_settings.micro_batch import MicroBatchTest, Peak, largest_part, measure_micro_batch
from tinyclip_workers.training.checkpoints import Checkpoint

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import BATCH, STUDENT, auto, batches_of, equal, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

MANUAL = {"name": "manual", "inherit": "manual", "student": STUDENT.model_dump(exclude_none=True), "train": {"steps": 3}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shapes"))


def linear(fixed: int, each: int, memory: int = 10**12) -> Peak:
    """Parts that take that many bytes, on a device of that memory."""
    return lambda pairs: found if (found := fixed + each * pairs) <= memory else None


def having(monkeypatch: pytest.MonkeyPatch, fixed: int, each: int, budget: int) -> None:
    monkeypatch.setattr(micro_batch, "_memory", lambda trainer, batch: (linear(fixed, each), budget))


class TestParts:
    @pytest.mark.parametrize(
        ("local_batch", "budget", "part"),
        [
            pytest.param(1000, 10_500, 1000, id="all"),
            pytest.param(1000, 10_499, 512, id="a-power-of-two"),
            pytest.param(1024, 1_780, 128, id="exactly"),
            pytest.param(8, 600, 8, id="a-small-batch"),
            pytest.param(1000, 520, 2, id="two"),
            pytest.param(1000, 0, 1, id="not-even-one"),
            pytest.param(1, 0, 1, id="one-pair"),
        ],
    )
    def test_the_largest_that_fits_is_taken(self, local_batch: int, budget: int, part: int) -> None:
        found, peaks = largest_part(linear(500, 10), local_batch, budget)

        assert found == part
        assert part == 1 or peaks[part] == 500 + 10 * part

    def test_two_small_parts_predict_it(self) -> None:
        _, peaks = largest_part(linear(500, 10), 4096, 6_000)

        assert list(peaks) == [16, 32, 512]

    def test_what_runs_out_of_memory_is_halved_until_it_fits(self) -> None:
        found, peaks = largest_part(linear(500, 10, memory=1_000), 4096, 10**6)

        assert found == 32
        assert peaks[64] is None

    def test_small_parts_that_run_out_of_memory_are_halved(self) -> None:
        found, peaks = largest_part(linear(500, 10, memory=550), 4096, 10**6)

        assert (found, peaks) == (4, {16: None, 32: None, 8: None, 4: 540})


def part_on_worker(rank: int, shards: str) -> tuple[int | None, int]:
    """Return what two workers select, of which one has less memory, and what remains of the batches."""
    with pytest.MonkeyPatch.context() as patch:
        having(patch, 0, 10, budget=[80, 45][rank])
        trainer = trainer_of(spec_of(shards, MANUAL, micro_batch="auto"))
        result, batches = measure_micro_batch(trainer, batches_of(trainer))
        return result.micro_batch, next(batches).position.batch


class TestWorkers:
    def test_all_take_what_fits_on_each(self, shards: str) -> None:
        assert on_workers(2, part_on_worker, shards) == [(4, 1), (4, 1)]


class TestTraining:
    def test_a_cpu_takes_the_whole_batch(self, shards: str) -> None:
        trainer = trainer_of(spec_of(shards, MANUAL, micro_batch="auto"))

        result, batches = measure_micro_batch(trainer, batches_of(trainer))

        assert (result.micro_batch, result.local_batch, result.peaks) == (None, BATCH, {})
        assert next(batches).position == DataPosition(0, 1)
        assert trainer.micro_batch is None

    def test_it_is_kept_by_a_checkpoint(self, shards: str) -> None:
        spec = spec_of(shards, MANUAL, micro_batch="auto")
        first, second = trainer_of(spec), trainer_of(spec)
        first.micro_batch = 2
        batch: Batch = next(batches_of(first))

        second.restore(Checkpoint("", first.learner.tensors(), {**json.loads(json.dumps(first.state())), "step": 0}))

        assert second.micro_batch == 2
        assert first.train_step(batch)[0].loss == second.train_step(batch)[0].loss

    def test_a_number_is_used_as_it_is(self, shards: str) -> None:
        assert trainer_of(spec_of(shards, MANUAL, micro_batch=3)).micro_batch == 3

    @pytest.mark.parametrize("value", [0, "all", 1.5])
    def test_other_values_are_refused(self, shards: str, value: Any) -> None:
        with pytest.raises(ValidationError, match="micro_batch"):
            spec_of(shards, MANUAL, micro_batch=value)

    def test_the_result_survives_its_document(self) -> None:
        result = MicroBatchTest(4, 8, {16: None, 4: 10}, 50)

        assert MicroBatchTest.from_json(json.loads(json.dumps(result.to_json()))) == result


class TestJobs:
    def test_a_job_reports_it_and_equals_one_with_that_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        having(monkeypatch, 100, 10, budget=145)
        spec = specs_in(tmp_path)({**auto(0.4, prune_step=2), "train": {"steps": 3}})
        spec = spec.model_copy(update={"precision": "fp32"})
        students = []
        for name, setting in (("auto", "auto"), ("number", 4)):
            job = Job(tmp_path / name, spec.model_copy(update={"micro_batch": setting}))
            with no_cluster():
                assert job.attempt()
            students.append(job.weights())
            reported = [event["data"]["micro_batch"] for event in job.events("micro_batch.selected")]
            assert reported == ([4] if setting == "auto" else [])

        assert equal(*students)
