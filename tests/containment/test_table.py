"""The report for people."""

from __future__ import annotations

import pytest

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.outcome import Outcome, Status, Told, Verdict
from egress_gateway.containment.place import Place
from egress_gateway.containment.run import Report
from egress_gateway.containment.table import closing_line, gateway_lines, table


def row(status: Status, check: str = "HTTP", target: str = "203.0.113.9:80") -> Outcome:
    return Outcome(check, "IPv4", target, Verdict(status, Told.SILENT, "no answer"), 7)


def test_columns_are_equal_and_lines_have_no_blanks_at_their_ends() -> None:
    rows = [row(Status.STOPPED), row(Status.UNTESTED, "all of IPv4", "")]
    assert table(rows, colours=False) == (
        "CHECK        IP    TARGET          RESULT    HOW\n"
        "HTTP         IPv4  203.0.113.9:80  stopped   no answer\n"
        "all of IPv4  IPv4  -               untested  no answer"
    )


def test_colours_change_nothing_but_the_colour() -> None:
    rows = [row(status) for status in Status]
    coloured = table(rows, colours=True)
    for status, colour in zip(Status, ("32", "31", "31", "33", "32"), strict=True):
        assert f"\x1b[{colour}m{status.value}\x1b[0m" in coloured
    plain = coloured
    for colour in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        plain = plain.replace(colour, "")
    assert plain == table(rows, colours=False)


def test_whom_it_took_for_the_gateway_is_said() -> None:
    places = {
        Family.V4: Place(1, ("10.0.0.1",), "10.0.0.7"),
        Family.V6: Place(2, ("fd00::1", "fd00::2"), "fd00::7"),
    }
    assert gateway_lines(Report((), places)) == (
        "IPv4: the gateway is next door (10.0.0.1)\nIPv6: the gateway is 2 hops away (fd00::1)"
    )
    nowhere = {Family.V4: Place(1, (), "10.0.0.7", found=False)}
    assert gateway_lines(Report((), nowhere)) == (
        "IPv4: no gateway answered; it is taken to be next door (address unknown)"
    )
    assert gateway_lines(Report(())) == ""


STOPPED, OPEN, BROKEN = Status.STOPPED, Status.OPEN, Status.BROKEN
LINES = {
    (STOPPED, STOPPED, Status.UNTESTED): "2 stopped, 0 open, 0 broken, 1 untested: nothing goes round the gateway",
    (STOPPED, Status.WORKS): "1 stopped, 0 open, 0 broken, 0 untested, 1 works: nothing goes round the gateway",
    (STOPPED, OPEN, BROKEN): "1 stopped, 1 open, 1 broken, 0 untested: there are ways round the gateway",
    (STOPPED, BROKEN): (
        "1 stopped, 0 open, 1 broken, 0 untested: "
        "nothing was seen going round, but the gateway does not work as it must"
    ),
    (Status.UNTESTED,): "0 stopped, 0 open, 0 broken, 1 untested: nothing could be tried, so nothing is proven",
    (): "0 stopped, 0 open, 0 broken, 0 untested: nothing could be tried, so nothing is proven",
}


@pytest.mark.parametrize("statuses", LINES, ids=str)
def test_the_closing_line_counts_and_says_what_it_comes_to(statuses: tuple[Status, ...]) -> None:
    report = Report(tuple(map(row, statuses)))
    assert closing_line(report) == LINES[statuses]
    assert report.contained is LINES[statuses].endswith("nothing goes round the gateway")
