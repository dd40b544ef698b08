"""The latency model: milliseconds per unit of each term, fitted to measured layouts, and what it predicts for others.

Coefficients are at least 0, so a larger layout is never predicted to be faster. Relative errors are minimised, nearly by their
absolute values: a few measurements that other load on the machine has slowed down do not move the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from tinyclip.artifacts.searches import EngineCost
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.searches import Hardware

from tinyclip_workers.costs.terms import Terms, Tower, count_terms, family_of, term_names

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

ROUNDS = 8
"""Fits, each of which weights the errors of the one before."""
SMALL_ERROR = 0.01
"""Relative errors below this count by their squares, those above by their absolute values."""
FOLDS, REPETITIONS = 5, 4
"""Of the cross-validation."""
MIN_LAYOUTS = 8
"""Fewer cannot be cross-validated."""
_OPENVINO = "openvino"


@dataclass(frozen=True)
class Key:
    """One call of a tower of an engine, which latencies of a cost model are of."""

    engine: str
    tower: Tower
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.engine}:{self.tower}:{self.batch}:{self.threads}"

    @classmethod
    def parse(cls, text: str) -> "Key":
        """Raises ValueError if `text` is not a key of a cost model."""
        engine, tower, batch, threads = text.split(":")
        if tower not in ("image", "text"):
            raise ValueError(f"{text}: there is no tower {tower}")
        return cls(engine, "image" if tower == "image" else "text", int(batch), int(threads))

    @classmethod
    def of(cls, hardware: Hardware) -> "Key":
        return cls(hardware.engine, hardware.tower, hardware.batch, hardware.threads)

    def terms(self, layout: Layout) -> Terms:
        """Count the terms of a call. OpenVINO converts our own towers, whatever the layout."""
        library = layout.is_uniform and not self.engine.startswith(_OPENVINO)
        return count_terms(layout, self.tower, self.batch, library=library)


def fit(key: Key, layouts: Sequence[Layout], latencies_ms: Sequence[float]) -> EngineCost:
    """Fit the cost of an engine to layouts of one family. Its errors are cross-validated. Raises ValueError for too few."""
    families = {family_of(layout, key.tower) for layout in layouts}
    if len(families) != 1 or len(layouts) < MIN_LAYOUTS:
        raise ValueError(f"a cost model needs at least {MIN_LAYOUTS} layouts of one family, not {len(layouts)} of {families}")
    (family,) = families
    terms_NK = np.array([list(key.terms(layout).values()) for layout in layouts])
    ms_N = np.array(latencies_ms, dtype=np.float64)
    errors = _cross_validated(terms_NK, ms_N)
    rates_K = _fit_rates(terms_NK, ms_N)
    return EngineCost(
        family=family,
        coefficients=dict(zip(term_names(family), map(float, rates_K), strict=True)),
        median_error=float(np.median(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
        layouts=len(layouts),
    )


def predict(cost: EngineCost, key: Key, layout: Layout) -> float:
    """Return the latency of a layout in milliseconds. Raises ValueError if its tower is of another family."""
    family = family_of(layout, key.tower)
    if family != cost.family:
        raise ValueError(f"the cost model of {key} is of a {cost.family}, not of a {family}")
    return sum(cost.coefficients.get(name, 0.0) * value for name, value in key.terms(layout).items())


def relative_errors(predicted: Sequence[float], measured: Sequence[float]) -> Vector:
    """Return |predicted - measured| / measured."""
    measured_N = np.array(measured, dtype=np.float64)
    errors: Vector = np.abs(np.array(predicted) - measured_N) / measured_N
    return errors


def _cross_validated(terms_NK: Matrix, ms_N: Vector) -> Vector:
    """Return the relative errors of layouts that were not fitted to, of several divisions into folds."""
    errors: list[Any] = []
    for seed in range(REPETITIONS):
        order = np.random.default_rng(seed).permutation(len(ms_N))
        for fold in range(FOLDS):
            left_out = order[fold::FOLDS]
            fitted = np.setdiff1d(order, left_out)
            rates_K = _fit_rates(terms_NK[fitted], ms_N[fitted])
            errors.append(np.abs(terms_NK[left_out] @ rates_K - ms_N[left_out]) / ms_N[left_out])
    return np.concatenate(errors)


def _fit_rates(terms_NK: Matrix, ms_N: Vector) -> Vector:
    """Return the milliseconds per unit of each term (K): non-negative least squares, weighted again after each round."""
    largest_K = terms_NK.max(axis=0)
    scale_K = np.where(largest_K > 0, largest_K, 1.0)  # terms differ by many powers of ten
    shares_NK = terms_NK / scale_K / ms_N[:, None]
    weights_N = np.ones(len(ms_N))
    for _ in range(ROUNDS):
        rates_K, _ = nnls(shares_NK * weights_N[:, None], weights_N)
        weights_N = 1 / np.sqrt(np.maximum(np.abs(shares_NK @ rates_K - 1), SMALL_ERROR))
    rates: Vector = rates_K / scale_K
    return rates
