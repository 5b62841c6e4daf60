"""What people read."""

from bench.figures import Figures, Metric
from bench.table import aligned, figures_table, judgement_table, markdown
from bench.targets import judge

_HTTP = Metric("http", "HTTP request", "us CPU", 1)
_LATENCY = Metric("latency", "added latency", "ms", 2, compared=False)


def figures() -> Figures:
    made = Figures()
    for subject, value in (("squid", 100.0), ("gateway", 57.31), ("envoy", None)):
        made.add(_HTTP, subject, value)
    made.add(_LATENCY, "gateway", 0.5)
    made.add(_LATENCY, "squid", 0.25)
    return made


def test_a_line_for_each_metric_with_ours_first_and_ratios_in_brackets() -> None:
    assert figures_table(figures()).splitlines() == [
        "                       gateway         squid  envoy",
        "HTTP request   us CPU     57.3  100.0 (0.57)   void",
        "added latency  ms         0.50          0.25      -",
    ]


def test_a_judgement_says_what_was_measured_what_must_be_and_how_it_ended() -> None:
    lines = judgement_table(judge(figures(), ["http"])).splitlines()
    assert lines[1].split() == ["HTTP", "request:", "of", "Squid's", "CPU", "0.57", "<=", "1", "<=", "0.7", *AS_WANTED]
    assert lines[2].endswith("not measured")


AS_WANTED = ["holds,", "as", "wanted"]


def test_no_line_ends_in_blanks() -> None:
    assert aligned([["a", "b", ""], ["aa", "", ""]], left=1) == "a   b\naa"


def test_the_same_as_markdown() -> None:
    lines = markdown(figures(), judge(figures(), ["http"])).splitlines()
    assert lines[:3] == [
        "|  |  | gateway | squid | envoy |",
        "|---|---|---:|---:|---:|",
        "| HTTP request | us CPU | **57.3** | 100.0 (0.57) | void |",
    ]
    assert lines[-2:] == [
        "| HTTP request: of Squid's CPU | 0.57 | <= 1 | <= 0.7 | holds, as wanted |",
        "| HTTP request: of Envoy's CPU | - | <= 1 | <= 0.7 | not measured |",
    ]
