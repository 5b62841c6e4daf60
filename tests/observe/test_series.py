from collections.abc import Callable

import pytest

from egress_gateway.observe.arena import Arena
from egress_gateway.observe.merged import Merged
from egress_gateway.observe.series import Declaration, Family, Histograms, Numbers, Table

SECONDS = Family("seconds", "histogram", "Time.", (0.5, 1))


@pytest.fixture
def arena() -> Arena:
    arena = Arena.create(rows=64, text=8192, cells=1024)
    arena.adopt()
    return arena


def counter(*labels: str) -> Declaration:
    return Declaration((Family("x_total", "counter", "X."),), labels)


def lines(arena: Arena) -> list[str]:
    """The exposition without its heads."""
    return [line for line in Merged([arena]).text().splitlines() if not line.startswith("#")]


def test_a_counter_is_written_with_help_type_and_labels(arena: Arena) -> None:
    requests = Numbers(arena, Declaration((Family("requests_total", "counter", "Requests."),), ("code", "rule")))
    requests.at("200", "default/a").value += 3
    assert Merged([arena]).text() == (
        "# HELP requests_total Requests.\n"
        "# TYPE requests_total counter\n"
        'requests_total{code="200",rule="default/a"} 3\n'
    )


def test_a_series_without_labels_has_no_braces(arena: Arena) -> None:
    Numbers(arena, Declaration((Family("rules", "gauge", "Rules."),), ())).at().value = 2.5
    assert lines(arena) == ["rules 2.5"]


def test_a_histogram_counts_upwards_and_includes_its_bounds(arena: Arena) -> None:
    seconds = Histograms(arena, Declaration((SECONDS,), ("a",)))
    for value in (0.1, 0.5, 0.75, 1, 2):
        seconds.at("x").observe(value)
    assert lines(arena) == [
        'seconds_bucket{a="x",le="0.5"} 2',
        'seconds_bucket{a="x",le="1"} 4',
        'seconds_bucket{a="x",le="+Inf"} 5',
        'seconds_sum{a="x"} 4.35',
        'seconds_count{a="x"} 5',
    ]


def test_a_histogram_without_labels_has_only_its_bounds_in_braces(arena: Arena) -> None:
    Histograms(arena, Declaration((Family("seconds", "histogram", "Time.", (1,)),), ())).at()
    assert lines(arena) == [
        'seconds_bucket{le="1"} 0',
        'seconds_bucket{le="+Inf"} 0',
        "seconds_sum 0",
        "seconds_count 0",
    ]


def test_families_of_one_table_lie_side_by_side(arena: Arena) -> None:
    table = Table(
        arena, Declaration((Family("n_total", "counter", "N."), SECONDS, Family("m_total", "counter", "M.")), ())
    )
    first = table.row()
    table.cells[first] = 7
    table.cells[first + 1 + 2 + 1 + 1] = 9
    assert [line for line in lines(arena) if "seconds" not in line] == ["n_total 7", "m_total 9"]


def test_label_values_are_escaped(arena: Arena) -> None:
    Numbers(arena, counter("a")).at('q"b\\\n\nend\udfff')
    assert lines(arena) == ['x_total{a="q\\"b\\\\\\n\\nend\udfff"} 0']


def test_the_same_labels_are_the_same_series(arena: Arena) -> None:
    numbers = Numbers(arena, counter("a"))
    assert numbers.at("1") is numbers.at("1")
    assert numbers.at("1").at != numbers.at("2").at


@pytest.mark.parametrize("kind", [Numbers, Table])
def test_too_few_values_are_an_error(arena: Arena, kind: type[Table]) -> None:
    with pytest.raises(ValueError, match="2 labels, not 1"):
        kind(arena, counter("a", "b")).row("1")


def test_past_its_limit_a_family_counts_the_rest_as_other(arena: Arena) -> None:
    numbers = Numbers(arena, counter("a"), limit=2)
    for i in range(20):
        numbers.at(str(i)).value += 1
    assert lines(arena) == ['x_total{a="0"} 1', 'x_total{a="1"} 1', 'x_total{a="other"} 18']


def test_only_wanted_series_are_kept(arena: Arena) -> None:
    numbers = Numbers(arena, counter("a"))
    numbers.at("old").value = 5
    numbers.at("new").value = 7
    numbers.keep(lambda values: values == ("new",))
    assert lines(arena) == ['x_total{a="new"} 7']
    numbers.at("old").value += 1
    assert sorted(lines(arena)) == ['x_total{a="new"} 7', 'x_total{a="old"} 1']


@pytest.mark.parametrize(
    "full",
    [
        lambda: Arena.create(rows=8, text=65536, cells=4096),
        lambda: Arena.create(rows=4096, text=4096, cells=4096),
        lambda: Arena.create(rows=4096, text=65536, cells=100),
    ],
    ids=["rows", "texts", "cells"],
)
def test_where_there_is_no_room_the_rest_is_counted_as_other(
    full: Callable[[], Arena], caplog: pytest.LogCaptureFixture
) -> None:
    arena = full()
    arena.adopt()
    numbers = Numbers(arena, counter("a"))
    for i in range(1000):
        numbers.at(str(i)).value += 1
    found = [float(line.rpartition(" ")[2]) for line in lines(arena)]
    assert sum(found) == 1000
    assert found[-1] > 800
    assert "no room for more series" in caplog.text
    assert len(caplog.records) == 1, "said once"


def test_where_there_is_no_room_even_for_that_nobody_fails_and_nothing_is_mixed_up() -> None:
    arena = Arena.create(rows=4, text=4096, cells=100)
    arena.adopt()
    several = [Numbers(arena, Declaration((Family(f"x{i}_total", "counter", "X."),), ("a",))) for i in range(3)]
    for numbers in several:
        for i in range(100):
            numbers.at(str(i)).value += 1
    assert lines(arena) == ['x0_total{a="other"} 100']


def test_who_comes_after_goes_on_counting_in_the_same_series(arena: Arena) -> None:
    for _ in range(3):
        arena.adopt()
        numbers = Numbers(arena, counter("a"))
        numbers.at("x").value += 1
        Histograms(arena, Declaration((SECONDS,), ())).at().observe(0.5)
    assert 'x_total{a="x"} 3' in lines(arena)
    assert "seconds_count 3" in lines(arena)


def test_gauges_of_the_one_before_are_not_taken_over(arena: Arena) -> None:
    for label in ("one", "two"):
        arena.adopt()
        gauge = Numbers(arena, Declaration((Family("open", "gauge", "Open."),), ("a",)))
        gauge.at(label).value += 1
    assert lines(arena) == ['open{a="two"} 1']
