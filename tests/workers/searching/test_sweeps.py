"""Sweeps over fields of the spec, without constraints."""

import math

import pytest
from tinyclip.schemas import JobSpec
from tinyclip.schemas.jobs import JobState
from tinyclip_workers.searching import advise
from tinyclip_workers.searching.specs import with_settings

from tests.workers.searching.world import SPEC, World, new_record, post, run, step

LR = {"min": 1e-5, "max": 1e-1, "log": True}


class Rates(World):
    """A world in which the learning rate matters much, and the batch size little."""

    def train(self, trial, record):
        ended = super().train(trial, record)
        rate, batch = trial.spec["optimizer"]["lr"], trial.spec["batch_size"]
        value = 0.6 - 0.05 * math.log10(rate / 2e-3) ** 2 - (0.002 if batch == 64 else 0.0)
        return ended.model_copy(update={"quality": {"val": {"top1": value}}})


def test_a_grid_has_every_combination_once():
    request = post(vary={"optimizer.lr": {**LR, "steps": 3}, "batch_size": [64, 128]}, strategy="grid", budget={"trials": 50})

    record, advice = run(new_record(request), Rates())

    found = [(trial.settings["optimizer.lr"], trial.settings["batch_size"]) for trial in record.trials]
    assert sorted(found) == [(rate, batch) for rate in (1e-5, 1e-3, 1e-1) for batch in (64, 128)]
    assert record.trials[advice.finished.recommended.trial].settings == {"optimizer.lr": 1e-3, "batch_size": 128}


def test_a_range_of_integers_has_integers():
    request = post(vary={"batch_size": {"min": 8, "max": 10, "integer": True}}, strategy="grid")

    record, _ = run(new_record(request), World())

    assert [trial.spec["batch_size"] for trial in record.trials] == [8, 9, 10]


def test_random_values_are_within_their_range_and_differ():
    record, _ = run(new_record(post(vary={"optimizer.lr": LR}, strategy="random", budget={"trials": 20})), Rates())

    rates = [trial.settings["optimizer.lr"] for trial in record.trials]
    assert len(set(rates)) == 20
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert any(rate < 1e-3 for rate in rates)
    assert any(rate > 1e-3 for rate in rates)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auto_learns_the_best_rate(seed):
    request = post(vary={"optimizer.lr": LR, "batch_size": [64, 128]}, budget={"trials": 25}, seed=seed)

    record, advice = run(new_record(request), Rates())

    best = record.trials[advice.finished.recommended.trial].settings["optimizer.lr"]
    assert abs(math.log10(best / 2e-3)) < 0.4
    assert advice.finished.importance["optimizer.lr"] > 0.8
    assert "pets@" in advice.finished.reason
    assert "optimizer.lr = " in advice.finished.reason


def test_the_same_record_has_the_same_advice_wherever_it_is_cut():
    request = post(vary={"optimizer.lr": LR}, budget={"trials": 12, "at_once": 2})
    whole, advice = run(new_record(request), Rates())

    for count in range(12):
        again, same = run(whole.model_copy(update={"trials": whole.trials[:count]}), Rates())
        assert again.trials == whole.trials
        assert same == advice


def test_another_seed_has_other_trials():
    rates = [advise(new_record(post(vary={"optimizer.lr": LR}, seed=seed))).begin[0].settings["optimizer.lr"] for seed in (0, 1)]

    assert rates[0] != rates[1]


def test_importance_needs_some_trials():
    _, advice = run(new_record(post(vary={"optimizer.lr": LR}, budget={"trials": 4})), Rates())

    assert advice.finished.importance == {}
    assert "4 finished trials are too few for the importance of settings, which needs 8." in advice.finished.reason


def test_settings_without_effect_are_reported_so():
    world = World(noise=0)

    _, advice = run(new_record(post(vary={"optimizer.lr": LR}, budget={"trials": 9})), world)

    assert "no setting mattered" in advice.finished.reason


def test_a_sweep_ends_when_its_hours_are_used():
    request = post(vary={"optimizer.lr": LR}, budget={"trials": 100, "device_hours": 0.35})

    record, advice = run(new_record(request), Rates(hours=0.1))

    assert len(record.trials) == 4
    assert advice.finished is not None


def test_trials_that_fail_are_not_learned_from():
    record, advice = run(new_record(post(vary={"optimizer.lr": LR}, budget={"trials": 10})), Rates(fails=(0, 3)))

    assert sum(trial.state == JobState.FAILED for trial in record.trials) == 2
    assert "of 8 trials" in advice.finished.reason


def test_specs_are_complete():
    record, _ = step(new_record(post(vary={"stages.0.train.steps": [10, 20], "averaging.decay": [0.9]})), World())

    spec = JobSpec.model_validate(record.trials[0].spec)

    assert spec.stages[0].train.steps in (10, 20)
    assert spec.averaging.decay == 0.9


@pytest.mark.parametrize("path", ["name.first", "stages.3.train.steps", "stages.first.name"])
def test_impossible_paths_are_refused(path):
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        with_settings(SPEC, {path: 1})
