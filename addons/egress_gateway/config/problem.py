"""What is wrong in a rule file, where, and what to write instead.

A wrong rule is the operator's business: all problems of a load travel together in one `RuleErrors`. A warning is a
`Problem` too, but stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `line` and `column` count from 1; 0 where a problem concerns the file or directory as a whole."""

    file: str
    line: int
    column: int
    field: str
    """Path from the document's root, e.g. `spec.ports[0].port`; empty where the problem has no field."""
    message: str
    """What is wrong, then in parentheses what to write instead; one line."""
    severity: Severity = Severity.ERROR

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class RuleErrors(Exception):
    """Rules that cannot be used. `problems` holds everything that was found, warnings included, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return errors_of(self.problems)

    def __str__(self) -> str:
        """One line for each error; warnings are left to whoever prints `problems`."""
        return "\n".join(str(problem) for problem in self.errors)


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(problem for problem in problems if problem.is_error)


def warnings_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(problem for problem in problems if not problem.is_error)


class Problems:
    """Collects the problems of one file, at most `limit` errors and `limit` warnings, and counts the rest."""

    def __init__(self, file: str, limit: int) -> None:
        self.file = file
        self._limit = limit
        self._kept: dict[Severity, list[Problem]] = {Severity.ERROR: [], Severity.WARNING: []}
        self._dropped: dict[Severity, int] = {Severity.ERROR: 0, Severity.WARNING: 0}

    def add(self, line: int, column: int, field: str, message: str, severity: Severity = Severity.ERROR) -> None:
        kept = self._kept[severity]
        if len(kept) < self._limit:
            kept.append(Problem(self.file, line, column, field, message, severity))
        else:
            self._dropped[severity] += 1

    def all(self) -> tuple[Problem, ...]:
        """In the order of the file, and after them a line for those that were only counted."""
        found = [problem for kept in self._kept.values() for problem in kept]
        found.sort(key=lambda problem: (problem.line, problem.column))
        for severity, count in self._dropped.items():
            if count:
                found.append(Problem(self.file, 0, 0, "", f"more {severity}s that are not shown: {count}", severity))
        return tuple(found)


def shown(text: str, most: int = 60) -> str:
    """`text` as it may stand in a message: one line, printable, not longer than `most` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in cut
    )
