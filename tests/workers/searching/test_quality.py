"""Margins of quality, what short trainings let expect, and curves of them."""

import pytest
from tinyclip.artifacts.searches import TrialRecord
from tinyclip.schemas.jobs import JobState
from tinyclip_workers.searching.curve import DEFAULT_SLOPE, between, bracket, monotone, slope
from tinyclip_workers.searching.quality import PRIOR_GAIN, Qualities

from tests.workers.searching.world import SPEC, new_record, post


def qualities(*constraints, tasks=None):
    spec = {**SPEC, "evaluation": {"tasks": tasks}} if tasks else SPEC
    return Qualities.of(new_record(post(spec=spec, constraints=constraints)))


def trial(number=0, rung=0, continues=None, **tasks):
    values = {task.replace("_", "."): {metric: value} for task, (metric, value) in tasks.items()}
    settings = {} if continues is None else {"continues": continues}
    return TrialRecord(number=number, rung=rung, state=JobState.SUCCEEDED, quality=values, settings=settings)


class TestMargin:
    def test_is_the_smallest_of_several_qualities(self):
        found = qualities({"task": "val", "keep": 0.9}, {"task": "val", "metric": "top5", "min": 0.8})
        both = trial().model_copy(update={"quality": {"val": {"top1": 0.6, "top5": 0.6}}})

        assert found.margin(both) == pytest.approx(0.75)

    def test_of_a_retrieval_task_is_of_its_own_metric(self):
        tasks = [{"name": "photos", "kind": "retrieval", "shards": "a.tar"}]

        found = qualities({"task": "photos", "min": 0.5}, tasks=tasks)

        assert found.margin(trial(photos=("text_to_image_r10", 0.6))) == pytest.approx(1.2)

    def test_of_several_languages_is_of_their_mean(self):
        found = qualities({"task": "val", "min": 0.5})

        assert found.margin(trial(val_en=("top1", 0.6), val_de=("top1", 0.4))) == pytest.approx(1.0)

    def test_is_unknown_without_a_value(self):
        assert qualities({"task": "val", "min": 0.5}).margin(trial()) is None

    def test_without_qualities_to_keep_is_a_share_of_the_teachers(self):
        assert qualities({"params": {"max": 10}}).margin(trial(val=("top1", 0.3))) == pytest.approx(0.5)


class TestGain:
    def test_is_assumed_before_a_pair_of_rungs(self):
        first, second, last = qualities({"task": "val", "keep": 0.9}).gains([], 3)

        assert (second, last) == (pytest.approx(PRIOR_GAIN), 0.0)
        assert first == pytest.approx(1 - (1 - PRIOR_GAIN) ** 2)

    def test_is_learned_from_pairs(self):
        pairs = [trial(0, val=("top1", 0.5)), trial(1, rung=1, continues=0, val=("top1", 0.58))]

        (gain, _) = qualities({"task": "val", "keep": 0.9}).gains(pairs, 2)

        assert gain == pytest.approx((PRIOR_GAIN + 0.8) / 2)


class TestCurve:
    def test_noise_is_pooled(self):
        assert monotone([(1, 0.9), (2, 1.02), (3, 0.98), (4, 1.1)]) == [(1, 0.9), (2, 1.0), (3, 1.0), (4, 1.1)]

    def test_is_bracketed(self):
        assert bracket([(1, 0.9), (2, 0.95), (3, 1.01), (4, 1.1)]) == ((2, 0.95), (3, 1.01))
        assert bracket([(1, 1.1)]) == (None, (1, 1.1))
        assert bracket([(1, 0.9)]) == ((1, 0.9), None)

    def test_the_next_size_is_between(self):
        assert between((1, 0.9), (4, 1.1)) == pytest.approx(2)
        assert between((1, 0.999), (4, 1.5)) == pytest.approx(4**0.2)

    def test_has_a_slope(self):
        assert slope([(1, 0.9)]) == DEFAULT_SLOPE
        assert slope([(1, 0.9), (2.718281828, 1.1)]) == pytest.approx(0.2)
        assert slope([(1, 1.1), (2, 0.9)]) == DEFAULT_SLOPE / 5
