"""The result of a search: the front, the recommendation, and every branch of its reason."""

import pytest
from tinyclip.artifacts.searches import TrialRecord
from tinyclip.schemas.jobs import JobState, ModelRef
from tinyclip.schemas.searches import Measurement
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.searching.results import finalists, result
from tinyclip_workers.searching.sizes import Shape, Size

from tests.workers.searching.world import VIT, World, latency, new_record, post, run

KEEP = {"task": "val", "keep": 0.95}
IMAGE = frozenset(("image",))


def trial(number, scale, value, **changes):
    """Return a finished trial whose image tower has a share of the teacher's."""
    layout = Size.of(Shape(), scale, VIT, IMAGE).layout(VIT)
    summary = summarize(layout)
    params = summary.image_params + summary.text_params
    return TrialRecord(
        number=number, rung=2, state=JobState.SUCCEEDED, model=ModelRef(name="pets", version=number + 1), layout=layout,
        params=params, macs=summary.macs, bytes=4 * params, quality={"val": {"top1": value}}, teacher={"val": {"top1": 0.6}},
    ).model_copy(update=changes)  # fmt: skip


def judged(constraints, trials, **changes):
    return result(new_record(post(constraints=constraints, **changes)), latency, trials)


class TestReason:
    """Trials 0 to 2 take 2.92, 1.92 and 1.42 ms."""

    TRIALS = (trial(0, 0.5, 0.59), trial(1, 0.25, 0.575), trial(2, 0.125, 0.55))

    def test_of_the_smallest_that_keeps_a_quality(self):
        found = judged([KEEP, {"latency_ms": {"max": 2}}], self.TRIALS)

        assert found.recommended.trial == 1
        assert found.reason == (
            "pets@2 is the smallest student found that meets all constraints: latency of the image tower (torch, batch 1) "
            "1.92 ms (limit 2 ms); top1 of val 0.575 (95.8% of the teacher's, 95% needed). The next smaller one, with 1.42 ms, "
            "has top1 of val 0.550 (91.7% of the teacher's, 95% needed)."
        )

    def test_of_the_smallest_when_none_is_smaller(self):
        found = judged([{"task": "val", "min": 0.5}, {"latency_ms": {"max": 2}}], self.TRIALS)

        assert found.recommended.trial == 2
        assert found.reason.endswith("top1 of val 0.550 (91.7% of the teacher's, 0.500 needed).")

    def test_of_the_best_within_limits(self):
        found = judged([{"latency_ms": {"max": 2}}], self.TRIALS)

        assert found.recommended.trial == 1
        assert found.reason == (
            "pets@2 has the best quality of 2 students within the limits: top1 of val 0.575 (95.8% of the teacher's); "
            "latency of the image tower (torch, batch 1) 1.92 ms (limit 2 ms)."
        )

    def test_of_constraints_that_contradict_each_other(self):
        found = judged([KEEP, {"latency_ms": {"max": 1.5}}], self.TRIALS)

        assert found.recommended is None
        assert found.reason == (
            "No student meets all constraints (latency of the image tower (torch, batch 1) at most 1.5 ms, 95% of the teacher's "
            "top1 of val): the smallest student that keeps 95% of the teacher's top1 of val has 1.92 ms (pets@2); with 1.42 ms "
            "the best has top1 of val 0.550 (91.7% of the teacher's, 95% needed) (pets@3)."
        )

    def test_of_a_quality_that_nothing_keeps(self):
        found = judged([{"task": "val", "keep": 0.99}], self.TRIALS)

        assert found.reason == (
            "No student meets all constraints (99% of the teacher's top1 of val): the best has top1 of val 0.590 (98.3% of the "
            "teacher's, 99% needed) (pets@1)."
        )

    def test_of_limits_that_nothing_meets(self):
        found = judged([{"params": {"max": 1_000_000}}], self.TRIALS)

        assert found.reason == (
            "No student meets all constraints (number of parameters at most 1M): the smallest student found has 3.27M parameters "
            "(pets@3)."
        )

    def test_without_students(self):
        found = judged([KEEP], [trial(0, 0.5, 0.59, state=JobState.FAILED)])

        assert (found.front, found.recommended) == ([], None)
        assert found.reason == "No trial has succeeded, so there is no student to recommend."

    def test_of_a_sweep(self):
        request = post(vary={"seed": [0, 1]})

        trials = [trial(0, 0.5, 0.5, settings={"seed": 0}), trial(1, 0.5, 0.55, settings={"seed": 1})]

        best = "pets@2 has the best quality of 2 trials: top1 of val 0.550 (91.7% of the teacher's), with seed = 1."
        assert result(new_record(request), None, trials).reason.startswith(best)


class TestFront:
    def test_has_what_nothing_is_better_than(self):
        dominated = trial(3, 0.25, 0.56)

        found = judged([KEEP, {"latency_ms": {"max": 2}}], [*TestReason.TRIALS, dominated])

        assert [candidate.trial for candidate in found.front] == [2, 1, 0]
        assert [candidate.is_feasible for candidate in found.front] == [False, True, False]

    def test_names_each_violation_with_both_numbers(self):
        found = judged([KEEP, {"latency_ms": {"max": 2}}], TestReason.TRIALS)

        assert found.front[0].violations == ["top1 of val is 0.550, less than 0.570"]
        assert found.front[2].violations == ["latency of the image tower (torch, batch 1) 2.92 ms, more than 2 ms"]


class TestMeasurements:
    def test_decide_instead_of_predictions(self):
        slow = trial(1, 0.25, 0.575, measurements=[Measurement(engine="torch", latency_ms={"image:1": 2.1})])

        found = judged([KEEP, {"latency_ms": {"max": 2}}], [TestReason.TRIALS[0], slow])

        assert found.recommended is None
        assert "has 2.1 ms (pets@2)" in found.reason

    def test_of_several_threads_are_told_apart(self):
        limit = {"latency_ms": {"max": 2}, "threads": 4}
        slow = trial(1, 0.25, 0.575, measurements=[Measurement(engine="torch", latency_ms={"image:1": 1.0, "image:1:4": 2.1})])

        found = judged([KEEP, limit], [slow])

        assert found.recommended is None

    def test_a_quality_is_that_of_the_engine_whose_latency_is_limited(self):
        worse = Measurement(engine="openvino-int8", latency_ms={"image:1": 0.5}, quality={"val": {"top1": 0.56}})

        found = judged(
            [KEEP, {"latency_ms": {"max": 2}, "engine": "openvino-int8"}], [trial(1, 0.25, 0.575, measurements=[worse])]
        )

        assert found.recommended is None
        assert found.front[0].violations == ["top1 of val is 0.560, less than 0.570"]

    def test_finalists_are_those_that_come_nearest_to_the_constraints(self):
        trials = [trial(number, 0.05 + 0.05 * number, 0.5 + 0.01 * number) for number in range(10)]

        numbers = finalists(new_record(post(constraints=[KEEP, {"latency_ms": {"max": 4}}])), latency, trials)

        assert len(numbers) == 6
        assert numbers[-1] == 9
        assert 7 in numbers

    def test_are_asked_for_once(self):
        record, advice = run(new_record(post(constraints=[{"latency_ms": {"max": 2}}])), World())

        assert advice.finished is not None
        assert record.measured == sorted({candidate.trial for candidate in advice.finished.front})


@pytest.mark.parametrize(("minimize", "expected"), [(None, 1), ("params", 1), ("macs", 0)])
def test_the_smallest_has_least_of_what_is_minimized(minimize, expected):
    fewer_macs = trial(0, 0.3, 0.58, macs=1000)

    found = judged([KEEP, {"latency_ms": {"max": 4}}], [fewer_macs, trial(1, 0.25, 0.575)], minimize=minimize)

    assert found.recommended.trial == expected
