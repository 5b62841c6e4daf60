"""How the two commands speak: a line a step, on standard error; what a program may read on, on standard output."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field


class Failure(Exception):
    """It cannot be done. The text is one line: what is wrong, and the fix."""


class UsageError(Failure):
    """It was not understood what to do."""


@dataclass(slots=True)
class Teller:
    """Says what `command` does, and remembers what a program asks for at the end."""

    command: str
    warnings: list[str] = field(default_factory=list)

    def step(self, line: str) -> None:
        # A terminal that was closed meanwhile is no reason to stop halfway.
        with suppress(OSError):
            print(f"{self.command}: {line}", file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        self.warnings.append(line)
        self.step(f"warning: {line}")

    def failed(self, failure: Failure) -> None:
        self.step(" ".join(str(failure).split("\n")))
