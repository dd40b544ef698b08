"""Sweeps: values for fields of the spec, by grid, at random, or learned from the trials before (Optuna)."""

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tinyclip.artifacts.searches import SearchRecord, TrialRecord
from tinyclip.schemas._base import JSON
from tinyclip.schemas.searches import Range, SearchPost

GRID_STEPS = 5
STARTUP = 5
"""Random trials before `auto` learns from them."""
ENOUGH = 8
"""Trials from which on the importance of settings is stated."""


def varied(post: SearchPost, settings: Mapping[str, Any]) -> JSON:
    """Return the values of the varied fields among a trial's settings."""
    return {path: settings[path] for path in post.vary if path in settings}


def grid(post: SearchPost) -> list[JSON]:
    """Return all combinations."""
    values = [_values(choices) for choices in post.vary.values()]
    return [dict(zip(post.vary, chosen, strict=True)) for chosen in itertools.product(*values)]


def first_values(post: SearchPost) -> JSON:
    """Return the first value of each varied field."""
    return {path: _values(choices)[0] for path, choices in post.vary.items()}


def ask(record: SearchRecord, done: Sequence[TrialRecord], quality: Mapping[int, float], number: int) -> JSON:
    """Return the values for trial `number`, a function of the record: the generator is seeded with both.

    `quality`: by the number of those finished trials that `auto` learns from.
    """
    post = record.post
    if post.strategy == "grid":
        combinations = grid(post)
        return combinations[number % len(combinations)]
    seed = (post.seed * 1_000_003 + number) % 2**32
    if post.strategy == "random" or len(quality) < STARTUP:
        chooser = random.Random(seed)
        return {path: _drawn(choices, chooser) for path, choices in post.vary.items()}
    return _learned(post, done, quality, seed)


def importance(post: SearchPost, trials: Sequence[TrialRecord], quality: Mapping[int, float]) -> tuple[dict[str, float], str]:
    """Return the share of the variation that each varied field explains, and a note where that cannot be stated."""
    if not post.vary:
        return {}, ""
    values = [quality[trial.number] for trial in trials if trial.number in quality and _is_complete(post, trial)]
    if len(values) < ENOUGH:
        return {}, f"{len(values)} finished trials are too few for the importance of settings, which needs {ENOUGH}."
    if max(values) - min(values) < 1e-9:
        return {}, "All trials have the same quality, so no setting mattered."
    import optuna  # deferred: few searches need it

    study = _study(post, trials, quality, seed=0)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: round(float(share), 4) for path, share in shares.items()}, ""


def _learned(post: SearchPost, done: Sequence[TrialRecord], quality: Mapping[int, float], seed: int) -> JSON:
    """Ask Optuna's TPE sampler, in a study in memory that is made from the record."""
    study = _study(post, done, quality, seed)
    chosen = study.ask(_distributions(post)).params
    return {path: _decoded(choices, chosen[path]) for path, choices in post.vary.items()}


def _study(post: SearchPost, trials: Sequence[TrialRecord], quality: Mapping[int, float], seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=len(post.vary) > 1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = _distributions(post)
    for trial in trials:
        if trial.number in quality and _is_complete(post, trial):
            values = {path: _encoded(choices, trial.settings[path]) for path, choices in post.vary.items()}
            study.add_trial(
                optuna.trial.create_trial(params=values, distributions=distributions, value=quality[trial.number])
            )
    return study


def _distributions(post: SearchPost) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for path, choices in post.vary.items():
        if not isinstance(choices, Range):
            found[path] = CategoricalDistribution([json.dumps(value) for value in choices])
        elif choices.integer:
            found[path] = IntDistribution(math.ceil(choices.min), math.floor(choices.max), log=choices.log)
        else:
            found[path] = FloatDistribution(choices.min, choices.max, log=choices.log)
    return found


def _encoded(choices: Range | list[Any], value: Any) -> Any:
    return value if isinstance(choices, Range) else json.dumps(value)


def _decoded(choices: Range | list[Any], value: Any) -> Any:
    return value if isinstance(choices, Range) else json.loads(value)


def _is_complete(post: SearchPost, trial: TrialRecord) -> bool:
    return all(path in trial.settings for path in post.vary)


def _values(choices: Range | list[Any]) -> list[Any]:
    """Return the values of a grid."""
    if not isinstance(choices, Range):
        return list(choices)
    steps = choices.steps or GRID_STEPS
    shares = [index / (steps - 1) for index in range(steps)]
    return list(dict.fromkeys(_at(choices, share) for share in shares))


def _drawn(choices: Range | list[Any], chooser: random.Random) -> Any:
    return _at(choices, chooser.random()) if isinstance(choices, Range) else chooser.choice(choices)


def _at(choices: Range, share: float) -> float | int:
    """Return the value at a share of a range."""
    if choices.log:
        value = math.exp(math.log(choices.min) + share * (math.log(choices.max) - math.log(choices.min)))
    else:
        value = choices.min + share * (choices.max - choices.min)
    value = min(choices.max, max(choices.min, value))
    return round(value) if choices.integer else float(f"{value:.6g}")
