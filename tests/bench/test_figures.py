"""Medians over rounds, ratios within them, and figures that count for nothing."""

from bench.figures import Figures, Metric

_METRIC = Metric("http", "HTTP request", "us CPU", 1)


def figures(**rounds: list[float | None]) -> Figures:
    made = Figures()
    for subject, values in rounds.items():
        for value in values:
            made.add(_METRIC, subject, value)
    return made


def test_the_median_is_of_all_rounds() -> None:
    assert figures(gateway=[50, 90, 60]).median(_METRIC, "gateway") == 60


def test_a_ratio_is_of_one_round_and_not_of_medians() -> None:
    """The machine was three times as slow in the second round, for both."""
    made = figures(gateway=[50, 150, 60], squid=[100, 300, 100])
    assert made.ratios(_METRIC, "squid") == [0.5, 0.5, 0.6]
    assert made.ratio(_METRIC, "squid") == 0.5


def test_one_void_round_leaves_no_figure() -> None:
    made = figures(gateway=[50, None, 60], squid=[100, 100, 100])
    assert made.median(_METRIC, "gateway") is None
    assert made.ratio(_METRIC, "squid") is None
    assert made.median(_METRIC, "squid") == 100


def test_what_was_not_measured_has_no_figure() -> None:
    made = figures(gateway=[50])
    assert made.median(_METRIC, "squid") is None
    assert made.ratio(_METRIC, "squid") is None
    assert made.find("tunnels") is None
