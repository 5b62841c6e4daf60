"""The picture is an SVG that says what the table says."""

import xml.etree.ElementTree as ElementTree

from bench.chart import svg
from bench.figures import Figures, Metric

_SVG = "{http://www.w3.org/2000/svg}"


def figures() -> Figures:
    made = Figures()
    http = Metric("http", "HTTP request & answer", "us CPU", 1)
    for subject, value in (("squid", 100.0), ("gateway", 57.31), ("mitmdump", 1700.0), ("envoy", None)):
        made.add(http, subject, value)
    made.add(Metric("latency", "added latency", "ms", compared=False), "gateway", 0.5)
    return made


def bars(picture: str) -> list[float]:
    rects = ElementTree.fromstring(picture).findall(f"{_SVG}rect")
    return [float(rect.attrib["width"]) for rect in rects if rect.attrib.get("rx")]


def test_every_subject_with_a_figure_has_a_bar_ours_first() -> None:
    picture = svg(figures(), "2026")
    texts = [text.text for text in ElementTree.fromstring(picture).findall(f"{_SVG}text")]
    assert texts == [
        "HTTP request & answer",
        "us CPU, less is better",
        *("gateway", "57.3", "squid", "100.0", "mitmdump", "1,700.0"),
        "2026",
    ]
    ours, squid, mitmdump = bars(picture)
    assert ours < squid < mitmdump


def test_one_that_costs_many_times_the_others_does_not_hide_them() -> None:
    ours, squid, mitmdump = bars(svg(figures(), ""))
    assert mitmdump < 3 * squid
    assert abs(ours / squid - 0.573) < 0.01


def test_nothing_measured_is_an_empty_picture() -> None:
    assert bars(svg(Figures(), "")) == []
