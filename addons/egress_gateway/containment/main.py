"""The program: options in, a report out, and an exit status. `scripts/gateway-check --help` is its manual."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from .document import document
from .options import PROGRAM, Options, parse
from .outcome import Status
from .run import Progress, Report, run
from .table import closing_line, gateway_lines, table

CONTAINED, NOT_CONTAINED, USAGE = 0, 1, 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 nothing goes round, 1 something is open or broken or nothing could be tried, 2 usage."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if not sys.platform.startswith("linux"):
        print(f"{PROGRAM}: only Linux tells who sent an ICMP error, so run it on Linux", file=sys.stderr)
        return USAGE
    try:
        report = run(options, _progress(options))
        _print(report, options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone; nobody is to be told when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_CONTAINED
    return CONTAINED if report.contained else NOT_CONTAINED


def _print(report: Report, options: Options) -> None:
    if options.json:
        print(document(report))
        return
    outcomes = report.outcomes
    if options.quiet:
        outcomes = tuple(row for row in outcomes if row.verdict.status in (Status.OPEN, Status.BROKEN))
    if outcomes:
        print(table(outcomes, colours=_shows_colours(sys.stdout)), end="\n\n")
    if not (options.quiet and report.contained):
        print("\n".join(filter(None, (gateway_lines(report), closing_line(report)))))


def _shows_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _progress(options: Options) -> Progress:
    """A line that counts, for people only: on a terminal."""
    stream = sys.stderr
    if options.quiet or not stream.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        text = f"{PROGRAM}: {done} of {total} ways tried, up to {options.timeout:g} s" if done < total else ""
        stream.write(f"\r\x1b[K{text}")
        stream.flush()

    return show
