"""Quantiles and means of Prometheus' histograms."""

import math
from collections import Counter

import pytest
from tinyclip_server.deployments.histograms import Histogram


def histogram(**counts: int) -> Histogram:
    """Return a histogram of cumulative counts, `_2=5` meaning 5 values up to 2."""
    cumulative = {float(bound.strip("_")): float(count) for bound, count in counts.items()}
    return Histogram(Counter(cumulative), sum=0.0, count=max(cumulative.values(), default=0.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("q", "value"), [(0.1, 0.2), (0.5, 1.0), (0.75, 3.25), (0.99, 8.0), (1.0, 8.0)])
def test_quantiles_are_interpolated_within_a_bucket(q: float, value: float) -> None:
    assert histogram(_1=50, _2=50, _4=90, _8=90, _inf=100).quantile(q) == pytest.approx(value)


def test_without_values_there_is_none() -> None:
    empty = histogram(_1=0, _inf=0)

    assert (empty.quantile(0.5), empty.mean, empty.integer_mean, empty.buckets()) == (None, None, None, [])


def test_the_mean_of_whole_numbers() -> None:
    assert histogram(_1=3, _2=4, _4=4).integer_mean == pytest.approx((3 * 1 + 2) / 4)
    assert histogram(_1=0, _2=0, _4=2).integer_mean == 3.5


def test_buckets_have_their_own_counts() -> None:
    found = histogram(_1=3, _2=3, _4=7, _8=7, _inf=8).buckets()

    assert [(bucket.up_to, bucket.count) for bucket in found] == [(1, 3), (2, 0), (4, 4), (8, 0), (None, 1)]


def test_values_above_all_bounds_count_as_the_highest() -> None:
    assert histogram(_1=0, _8=0, _inf=5).quantile(0.5) == 8
    assert not math.isinf(histogram(_inf=5).quantile(0.5) or 0)
