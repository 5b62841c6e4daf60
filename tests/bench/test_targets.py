"""The judge: what holds, what fails, and what nobody can know."""

from collections.abc import Mapping

import pytest
from bench.figures import Figures, Metric
from bench.targets import TARGETS, Judgement, judge


def figures(values: dict[str, dict[str, list[float | None]]]) -> Figures:
    made = Figures()
    for key, subjects in values.items():
        metric = Metric(key, key, "us CPU")
        for subject, rounds in subjects.items():
            for value in rounds:
                made.add(metric, subject, value)
    return made


def judged(part: str, values: dict[str, dict[str, list[float | None]]], slack: float = 1) -> dict[str, Judgement]:
    return {each.target.text: each for each in judge(figures(values), [part], slack)}


_BYTES: Mapping[str, list[float | None]] = {
    "gateway": [0.3, 0.3],
    "squid": [0.6, 0.6],
    "envoy": [0.5, 0.8],
    "haproxy": [0.7, 0.4],
}

CASES: dict[str, tuple[str, dict[str, dict[str, list[float | None]]], str, bool | None, bool | None]] = {
    "cheaper than the peer holds": (
        "http",
        {"http": {"gateway": [80.0], "squid": [100.0]}},
        "HTTP request: of Squid's CPU",
        True,
        False,
    ),
    "cheap enough is even as wanted": (
        "http",
        {"http": {"gateway": [70.0], "squid": [100.0]}},
        "HTTP request: of Squid's CPU",
        True,
        True,
    ),
    "dearer than the peer fails": (
        "http",
        {"http": {"gateway": [101.0], "squid": [100.0]}},
        "HTTP request: of Squid's CPU",
        False,
        False,
    ),
    "a peer that is missing is not one that was beaten": (
        "http",
        {"http": {"gateway": [80.0], "squid": [100.0]}},
        "HTTP request: of Envoy's CPU",
        None,
        None,
    ),
    "a void figure of ours holds nothing": (
        "http",
        {"http": {"gateway": [None], "squid": [100.0]}},
        "HTTP request: of Squid's CPU",
        None,
        None,
    ),
    "the best peer is another one in each round": (
        "bytes",
        {"bytes_down": dict(_BYTES)},
        "bytes down: of the best peer's CPU",
        True,  # 0.3 of 0.5, then 0.3 of 0.4: 0.675 is the median
        False,
    ),
    "the best peer is not known where one is missing": (
        "bytes",
        {"bytes_down": {name: values for name, values in _BYTES.items() if name != "haproxy"}},
        "bytes down: of the best peer's CPU",
        None,
        None,
    ),
    "more is better for workers": (
        "workers",
        {"workers_scaling": {"gateway": [1.79]}},
        "what two workers serve, of one",
        False,
        None,
    ),
    "two workers that serve twice as much": (
        "workers",
        {"workers_scaling": {"gateway": [1.98]}},
        "what two workers serve, of one",
        True,
        None,
    ),
    "one descriptor left open is one too many": (
        "soak",
        {"soak_open": {"gateway": [1.0]}},
        "descriptors left open",
        False,
        None,
    ),
    "fewer descriptors than before are none left open": (
        "soak",
        {"soak_open": {"gateway": [-2.0]}},
        "descriptors left open",
        True,
        None,
    ),
    "memory that grows by four bytes a request is a leak": (
        "soak",
        {"soak_memory": {"gateway": [4_200.0]}},
        "memory grown, MiB",
        False,
        None,
    ),
    "memory that hardly grows over a million is flat": (
        "soak",
        {"soak_memory": {"gateway": [900.0]}},
        "memory grown, MiB",
        True,
        None,
    ),
}


@pytest.mark.parametrize(("part", "values", "text", "holds", "wanted"), CASES.values(), ids=CASES)
def test_a_target_is_judged(
    part: str,
    values: dict[str, dict[str, list[float | None]]],
    text: str,
    holds: bool | None,
    wanted: bool | None,
) -> None:
    judgement = judged(part, values)[text]
    assert (judgement.holds, judgement.wanted) == (holds, wanted)


def test_slack_widens_what_must_hold_and_not_what_is_wanted() -> None:
    values: dict[str, dict[str, list[float | None]]] = {"http": {"gateway": [120.0], "squid": [100.0]}}
    judgement = judged("http", values, slack=1.5)["HTTP request: of Squid's CPU"]
    assert judgement.holds
    assert not judgement.wanted
    least: dict[str, dict[str, list[float | None]]] = {"workers_scaling": {"gateway": [1.5]}}
    assert judged("workers", least, slack=1.5)["what two workers serve, of one"].holds


def test_slack_does_not_allow_what_must_be_none() -> None:
    left: dict[str, dict[str, list[float | None]]] = {"soak_open": {"gateway": [1.0]}}
    assert not judged("soak", left, slack=10)["descriptors left open"].holds


def test_only_parts_that_were_run_are_judged() -> None:
    assert {each.target.part for each in judge(Figures(), ["http", "idle"])} == {"http", "idle"}


def test_a_quick_run_is_judged_by_ratios_alone() -> None:
    parts = {target.part for target in TARGETS}
    judged_quickly = judge(Figures(), sorted(parts), quick=True)
    assert judged_quickly
    assert all(each.target.ratio for each in judged_quickly)


def test_latency_is_not_judged_where_requests_wait_as_long_without_a_proxy() -> None:
    quiet: dict[str, dict[str, list[float | None]]] = {
        "latency_p99": {"gateway": [0.4]},
        "latency_straight": {"gateway": [0.2]},
    }
    assert judged("latency", quiet)["added latency, p99, ms"].holds
    busy: dict[str, dict[str, list[float | None]]] = {
        "latency_p99": {"gateway": [-14.0]},
        "latency_straight": {"gateway": [23.0]},
    }
    assert judged("latency", busy)["added latency, p99, ms"].holds is None
