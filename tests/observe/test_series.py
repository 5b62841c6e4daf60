import pytest

from egress_gateway.observe.series import Family, Histogram, Number


def test_a_counter_is_written_with_help_type_and_labels() -> None:
    family = Family("requests_total", "counter", "Requests.", Number, ("code", "rule"))
    family.at("200", "default/a").value += 3
    assert "".join(family.render()) == (
        "# HELP requests_total Requests.\n"
        "# TYPE requests_total counter\n"
        'requests_total{code="200",rule="default/a"} 3\n'
    )


def test_a_series_without_labels_has_no_braces() -> None:
    family = Family("rules", "gauge", "Rules.", Number)
    family.at().value = 2.5
    assert "".join(family.render()).endswith("\nrules 2.5\n")


def test_a_histogram_counts_upwards_and_includes_its_bounds() -> None:
    family = Family("seconds", "histogram", "Time.", lambda: Histogram((0.5, 1)), ("a",))
    for value in (0.1, 0.5, 0.75, 1, 2):
        family.at("x").observe(value)
    assert "".join(family.render()).splitlines()[2:] == [
        'seconds_bucket{a="x",le="0.5"} 2',
        'seconds_bucket{a="x",le="1"} 4',
        'seconds_bucket{a="x",le="+Inf"} 5',
        'seconds_sum{a="x"} 4.35',
        'seconds_count{a="x"} 5',
    ]


def test_a_histogram_without_labels_has_only_its_bounds_in_braces() -> None:
    family = Family("seconds", "histogram", "Time.", lambda: Histogram((1,)))
    family.at()
    assert "".join(family.render()).splitlines()[2:] == [
        'seconds_bucket{le="1"} 0',
        'seconds_bucket{le="+Inf"} 0',
        "seconds_sum 0",
        "seconds_count 0",
    ]


def test_label_values_are_escaped() -> None:
    family = Family("x", "gauge", "X.", Number, ("a",))
    family.at('q"b\\n\nend')
    assert 'x{a="q\\"b\\\\n\\nend"} 0\n' in "".join(family.render())


def test_the_same_labels_are_the_same_series() -> None:
    family = Family("x", "gauge", "X.", Number, ("a",))
    assert family.at("1") is family.at("1")
    assert family.at("1") is not family.at("2")


def test_too_few_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="not 1 values"):
        Family("x", "gauge", "X.", Number, ("a", "b")).at("1")


def test_past_its_limit_a_family_counts_the_rest_as_other() -> None:
    family = Family("x_total", "counter", "X.", Number, ("a",), limit=2)
    for i in range(100):
        family.at(str(i)).value += 1
    assert family.at("0").value == 1
    assert family.at("other").value == 98
    assert "".join(family.render()).count("\n") == 2 + 3


def test_only_wanted_series_are_kept() -> None:
    family = Family("x_total", "counter", "X.", Number, ("a",))
    family.at("old").value = 5
    family.at("new").value = 7
    family.keep(lambda values: values == ("new",))
    assert "".join(family.render()).splitlines()[2:] == ['x_total{a="new"} 7']
