"""Quantiles are values that were seen."""

import pytest
from bench.parts.latency import quantile

_HUNDRED = [float(i) for i in range(100, 0, -1)]

CASES = {
    "the median of an odd number": ([3.0, 1.0, 2.0], 0.5, 2.0),
    "p99 of a hundred leaves out one": (_HUNDRED, 0.99, 99.0),
    "p99.9 of a hundred is the largest": (_HUNDRED, 0.999, 100.0),
    "the smallest": (_HUNDRED, 0.0, 1.0),
    "of one": ([7.0], 0.99, 7.0),
}


@pytest.mark.parametrize(("values", "part", "expected"), CASES.values(), ids=CASES)
def test_a_quantile(values: list[float], part: float, expected: float) -> None:
    assert quantile(values, part) == expected
