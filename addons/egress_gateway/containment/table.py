"""The report for people."""

from __future__ import annotations

from collections.abc import Sequence

from .outcome import Outcome, Status
from .place import Place
from .run import Report

_HEAD = ("CHECK", "IP", "TARGET", "RESULT", "HOW")
_RESULT = _HEAD.index("RESULT")
_GAP = 2
_COLOURS = {Status.STOPPED: 32, Status.WORKS: 32, Status.OPEN: 31, Status.BROKEN: 31, Status.UNTESTED: 33}


def table(outcomes: Sequence[Outcome], *, colours: bool) -> str:
    """Columns two blanks apart, with no blanks at the end; the result is green, red or yellow."""
    rows = [_HEAD, *map(_cells, outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width + _GAP) for cell, width in zip(row, widths)]
        if colours and number:
            status = outcomes[number - 1].verdict.status
            cells[_RESULT] = f"\x1b[{_COLOURS[status]}m{row[_RESULT]}\x1b[0m" + cells[_RESULT][len(row[_RESULT]) :]
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def gateway_lines(report: Report) -> str:
    """Whom the check took for the gateway, a line for each family: all verdicts hang on it."""
    return "\n".join(f"{family.value}: {_where(place)}" for family, place in report.places.items())


def _where(place: Place) -> str:
    address = place.address or "address unknown"
    if not place.found:
        return f"no gateway answered; it is taken to be next door ({address})"
    return f"the gateway is {'next door' if place.hops == 1 else f'{place.hops} hops away'} ({address})"


def closing_line(report: Report) -> str:
    """`31 stopped, 0 open, 0 broken, 4 untested`, and what it comes to."""
    statuses = [Status.STOPPED, Status.OPEN, Status.BROKEN, Status.UNTESTED]
    if report.count(Status.WORKS):
        statuses.append(Status.WORKS)
    counts = ", ".join(f"{report.count(status)} {status.value}" for status in statuses)
    if report.contained:
        return f"{counts}: nothing goes round the gateway"
    if report.count(Status.OPEN):
        return f"{counts}: there are ways round the gateway"
    if report.count(Status.BROKEN):
        return f"{counts}: nothing was seen going round, but the gateway does not work as it must"
    return f"{counts}: nothing could be tried, so nothing is proven"


def _cells(outcome: Outcome) -> tuple[str, ...]:
    verdict = outcome.verdict
    return (outcome.check, outcome.family, outcome.target or "-", verdict.status.value, verdict.how)
