"""How the two commands speak: a line a step, on standard error; what a program may read on, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
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

    def status_of(self, work: Callable[[], None], *, interrupted: str) -> int:
        """The exit status of the command that does `work`; why it failed is said. `interrupted`: what comes of that."""
        try:
            work()
        except UsageError as error:
            self._failed(f"{error} (see {self.command} --help)")
            return 2
        except Failure as failure:
            self._failed(str(failure))
            return 1
        except OSError as error:
            self._failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            return 1
        except KeyboardInterrupt:
            self.step(f"interrupted: {interrupted}")
            return 130
        return 0

    def _failed(self, why: str) -> None:
        self.step(" ".join(why.split("\n")))
