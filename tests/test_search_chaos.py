"""The comparison of a search with an undisturbed one detects each kind of difference, and each wrong job and lost step."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from bench.chaos.search_outcome import (
    SearchOutcome,
    TrialOutcome,
    differences_of,
    losses,
    with_trials,
    wrong_jobs,
    wrong_losses,
)
from bench.chaos.searches import KINDS, planned_kills


def outcome(job: str = "job_a", restarts: int = 0) -> SearchOutcome:
    trials = [
        TrialOutcome(
            number=number, rung=number, settings={"phase": "size", "scale": 0.5}, spec={"stages": [{"train": {"steps": 10}}]},
            state="succeeded", quality={"val": {"top1": 0.5}}, params=10, macs=20, bytes=40, layout={"embed_dim": 8},
            student="f00d", job=f"{job}{number}", attempts=1 + restarts, restarts=restarts, lost_steps=restarts,
        )
        for number in range(2)
    ]  # fmt: skip
    front = [{"trial": 1, "params": 10, "macs": 20, "is_feasible": True, "violations": [], "engines": {"torch": {"bytes": 40}}}]
    return SearchOutcome("sea_1", "succeeded", 10.0 + restarts, trials, front, 1, "trial 1 is the smallest")


def test_what_faults_change_is_no_difference() -> None:
    disturbed = outcome("job_b", restarts=1)
    disturbed.search = "sea_2"
    disturbed.trials[0].quality["val"]["ms_per_image"] = 2.0

    assert list(differences_of(disturbed, outcome())) == []


CHANGES: dict[str, Callable[[SearchOutcome], Any]] = {
    "trial 1: number": lambda found: setattr(found.trials[1], "number", 5),
    "trial 1: rung": lambda found: setattr(found.trials[1], "rung", 2),
    "trial 1: settings": lambda found: found.trials[1].settings.update(scale=0.25),
    "trial 1: spec": lambda found: found.trials[1].spec["stages"][0]["train"].update(steps=11),
    "trial 1: state": lambda found: setattr(found.trials[1], "state", "failed"),
    "trial 1: quality": lambda found: found.trials[1].quality["val"].update(top1=0.5 + 1e-9),
    "trial 1: params": lambda found: setattr(found.trials[1], "params", 11),
    "trial 1: macs": lambda found: setattr(found.trials[1], "macs", 21),
    "trial 1: bytes": lambda found: setattr(found.trials[1], "bytes", 41),
    "trial 1: layout": lambda found: setattr(found.trials[1], "layout", None),
    "trial 1: student": lambda found: setattr(found.trials[1], "student", "beef"),
    "trial 1 is missing": lambda found: found.trials.pop(),
    "the search: state": lambda found: setattr(found, "state", "failed"),
    "the search: front": lambda found: found.front[0]["engines"]["torch"].update(bytes=41),
    "the search: recommended": lambda found: setattr(found, "recommended", None),
    "the search: reason": lambda found: setattr(found, "reason", "another"),
}


@pytest.mark.parametrize("expected", list(CHANGES))
def test_each_difference_is_detected(expected: str) -> None:
    disturbed = outcome()
    CHANGES[expected](disturbed)

    found = list(differences_of(disturbed, outcome()))

    if expected == "trial 1: number":
        assert found == ["trial 1 is missing", "trial 5 is not in the undisturbed search"]
    else:
        assert len(found) == 1
        assert found[0].startswith(expected)


def test_every_field_of_a_trial_is_compared_or_known_to_vary() -> None:
    compared = {expected.removeprefix("trial 1: ") for expected in CHANGES}

    assert set(vars(outcome().trials[0])) == {name for name in compared if " " not in name} | {
        "job", "attempts", "restarts", "lost_steps",
    }  # fmt: skip


TRIALS = [(0, "job_a"), (1, "job_b"), (2, None)]
PARENTS: dict[str, tuple[str, int] | None] = {"job_a": ("sea_1", 0), "job_b": ("sea_1", 1)}


def test_one_job_a_trial_is_right() -> None:
    assert list(wrong_jobs(TRIALS, PARENTS)) == []


@pytest.mark.parametrize(
    ("trials", "parents", "expected"),
    [
        ([(0, "job_a"), (1, "job_a")], {"job_a": ("sea_1", 1)}, "two trials have the same job"),
        ([*TRIALS, (1, "job_b")], PARENTS, "a trial is there twice"),
        (TRIALS, {**PARENTS, "job_c": ("sea_1", 1)}, "job_c is a job of"),
        (TRIALS, {**PARENTS, "job_c": None}, "job_c is a job of"),
        (TRIALS, {"job_a": ("sea_1", 0)}, "job_b of trial 1 does not exist"),
    ],
)
def test_a_wrong_job_is_detected(trials: Any, parents: Any, expected: str) -> None:
    assert any(found.startswith(expected) for found in wrong_jobs(trials, parents))


def line(type: str, step: int | None = None, stage: int = 0) -> dict[str, Any]:
    return {"type": type, "stage": stage, "data": {} if step is None else {"step": step}}


TRAINED = [line("progress", 30), line("checkpoint", 40), line("progress", 70), line("progress")]


def test_steps_since_the_last_checkpoint_may_be_lost() -> None:
    lines = [*TRAINED, line("worker.restarted", 40), line("progress", 60)]

    assert losses(lines) == (1, 30)
    assert list(wrong_losses(lines)) == []


def test_continuing_from_a_checkpoint_before_the_last_one_is_detected() -> None:
    lines = [*TRAINED, line("checkpoint", 80), line("worker.restarted", 40)]

    assert list(wrong_losses(lines)) == ["a restart lost 40 steps, and 0 since the last checkpoint had been reported"]


def test_beginning_again_without_a_checkpoint_is_right_before_the_first_one_only() -> None:
    first = [line("progress", 30), line("progress", 5)]

    assert losses(first) == (1, 30)
    assert list(wrong_losses(first)) == []
    assert len(list(wrong_losses([*TRAINED, line("progress", 5)]))) == 1


def test_a_later_stage_begins_at_its_first_step() -> None:
    assert losses([*TRAINED, line("progress", 5, stage=1)]) == (0, 0)


def test_versions_are_those_of_trials() -> None:
    spec = {"inherit_from": "registry:searched@7", "steps": 7}

    assert with_trials(spec, {7: 3}) == {"inherit_from": "trial 3", "steps": 7}
    assert with_trials("searched@7 has the fewest MACs, others@8", {7: 3}) == "trial 3 has the fewest MACs, others@8"
    assert with_trials(deepcopy(spec), {}) == spec


def test_kills_take_turns_and_are_spread_over_the_search() -> None:
    planned = planned_kills(KINDS["two-nodes"], kills=10, trials=12, seed=0)

    assert [kind for kind, _ in planned] == ["server", "driver", "worker", "node"] * 2 + ["server", "driver"]
    assert [int(at / (12 * 0.9) * 10) for _, at in planned] == list(range(10))
    assert planned == planned_kills(KINDS["two-nodes"], kills=10, trials=12, seed=0)
    assert planned != planned_kills(KINDS["two-nodes"], kills=10, trials=12, seed=1)
