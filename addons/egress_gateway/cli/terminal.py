"""Lines for people: where they go, and their colours (on a terminal only; https://no-color.org)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from egress_gateway.config.problem import Problem


class Failure(click.ClickException):
    """The command did not do what was asked: one line an element of `lines`, exit status 1."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def paint(text: str, colour: str, stream: TextIO) -> str:
    """`text` in `colour` if `stream` shows colours."""
    return click.style(text, fg=colour, bold=colour != "yellow") if _shows_colours(stream) else text


def _shows_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def answer(text: str) -> None:
    """Writes a line of the answer to standard output."""
    click.echo(text, color=_shows_colours(sys.stdout))


def problem_line(problem: Problem) -> str:
    """`problem` as a line of an answer, a warning marked as one: `file:line:column: warning: field: message`."""
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    rest = str(problem).removeprefix(f"{place}: ")
    if problem.is_error:
        return f"{place}: {paint(rest, 'red', sys.stdout)}"
    return f"{place}: {paint('warning:', 'yellow', sys.stdout)} {rest}"


def error(line: str) -> None:
    """Writes `egressctl: line` to standard error."""
    click.echo(f"{paint('egressctl:', 'red', sys.stderr)} {line}", err=True, color=_shows_colours(sys.stderr))


def note(line: str) -> None:
    """Writes `egressctl: line` to standard error, for what is neither an answer nor wrong."""
    click.echo(f"egressctl: {line}", err=True)


def warning(line: str) -> None:
    """Writes `egressctl: warning: line` to standard error."""
    head = paint("egressctl: warning:", "yellow", sys.stderr)
    click.echo(f"{head} {line}", err=True, color=_shows_colours(sys.stderr))
