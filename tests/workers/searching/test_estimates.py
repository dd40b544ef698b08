"""What is known before a search starts."""

import re

import pytest
from tinyclip.schemas.spec import TrainLength
from tinyclip_workers.searching import bounds, duration
from tinyclip_workers.searching.estimates import START_HOURS

from tests.workers.searching.world import RESNET, STEPS, World, latency, new_record, post, run


class TestBounds:
    def test_a_limit_that_can_be_met(self):
        (bound,) = bounds(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), latency)

        assert bound.is_possible
        assert bound.smallest < 0.5
        assert bound.pointer == "/constraints/0/latency_ms/max"

    def test_a_limit_below_the_smallest_student(self):
        constraints = [{"task": "val", "keep": 0.9}, {"params": {"max": 1000}}]

        (bound,) = bounds(new_record(post(constraints=constraints)), latency)

        assert not bound.is_possible
        assert bound.pointer == "/constraints/1/params/max"
        assert "no student of this teacher's family has a number of parameters of 1k or less: the smallest has" in bound.message

    def test_the_nearest_limit_can_be_met(self):
        (bound,) = bounds(new_record(post(constraints=[{"params": {"max": 1000}}])), latency)
        nearest = float(re.search(r"raise the limit to (\d+) or more", bound.message)[1])

        (bound,) = bounds(new_record(post(constraints=[{"params": {"max": nearest}}])), latency)

        assert bound.is_possible
        assert nearest < 1.01 * bound.smallest

    def test_a_latency_that_is_exceeded_by_less_than_the_models_error(self):
        (bound,) = bounds(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), latency)

        found = [
            bounds(new_record(post(constraints=[{"latency_ms": {"max": share * bound.smallest}}])), latency)[0]
            for share in (0.985, 0.975)
        ]

        assert [each.is_possible for each in found] == [True, False]

    def test_of_latencies_without_a_cost_model(self):
        assert bounds(new_record(post(constraints=[{"latency_ms": {"max": 2}}]))) == []

    def test_of_a_resnet(self):
        (bound,) = bounds(new_record(post(constraints=[{"bytes": {"max": 1e9}}]), RESNET))

        assert bound.is_possible

    def test_of_a_sweep(self):
        assert bounds(new_record(post(vary={"seed": [1, 2]}))) == []


class TestDuration:
    def test_is_not_exceeded(self):
        request = post(constraints=[{"task": "val", "keep": 0.95}, {"latency_ms": {"max": 3}}])
        estimate = duration(new_record(request))

        record, _ = run(new_record(request), World())

        steps = sum(trial.spec["stages"][-1]["train"]["steps"] for trial in record.trials)
        assert len(record.trials) <= estimate.trials == sum(estimate.trials_by_rung) == 12
        assert steps <= estimate.steps
        assert estimate.device_hours == pytest.approx(0.1 * estimate.steps / STEPS, rel=0.01)

    def test_of_a_grid(self):
        estimate = duration(new_record(post(vary={"seed": [1, 2, 3]}, strategy="grid")))

        assert (estimate.trials, estimate.trials_by_rung, estimate.steps) == (3, [3], 3 * STEPS)

    def test_of_a_budget_of_hours(self):
        estimate = duration(new_record(post(vary={"seed": [1, 2, 3]}, budget={"trials": 50, "device_hours": 0.5})))

        assert estimate.device_hours == 0.5

    @pytest.mark.parametrize(("length", "steps"), [({"samples": 2500}, 10), ({"epochs": 2}, 70)])
    def test_of_samples_and_epochs(self, length, steps):
        record = new_record(post(vary={"seed": [1, 2]}, strategy="grid"))
        record.post.spec.stages[0].train = TrainLength(**length)

        assert duration(record.model_copy(update={"steps": 70})).steps == 2 * steps

    @pytest.mark.parametrize(
        ("at_once", "workers", "share", "rounds"), [(1, 1, 1.0, 4), (2, 1, 0.5, 2), (3, 1, 0.5, 2), (2, 2, 0.25, 2)]
    )
    def test_from_begin_to_end(self, at_once: int, workers: int, share: float, rounds: int):
        request = post(vary={"seed": [1, 2, 3, 4]}, strategy="grid", budget={"trials": 4, "at_once": at_once})
        request.spec.resources.workers = workers

        estimate = duration(new_record(request))

        assert estimate.hours == pytest.approx(share * estimate.device_hours + rounds * START_HOURS)

    def test_whole_trainings_of_a_search_for_sizes_follow_each_other(self):
        request = post(constraints=[{"params": {"max": 1e6}}], budget={"trials": 10, "at_once": 2})

        estimate = duration(new_record(request))

        whole = estimate.device_hours / (6 / 4 + 2 / 2 + 2)
        assert estimate.trials_by_rung == [6, 2, 2]
        assert estimate.hours == pytest.approx(whole * (3 / 4 + 1 / 2 + 2) + 6 * START_HOURS)
