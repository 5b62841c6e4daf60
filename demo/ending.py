"""A signal ends the demo: as an exception, wherever the play is, so that all that was set up is taken down.

Wherever but in one place: between the fork of a program and the line from which somebody would end it, the exception
would lose the program. There the signal waits, see `Hold`. A mask of the kernel's would not do: the signal would go to
another thread, and its handler runs in the main thread all the same.
"""

from __future__ import annotations

import signal
from typing import NoReturn, Self

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_holds: list[Hold] = []
_waiting: list[int] = []


class Ended(BaseException):
    """A signal wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Hold:
    """`with Hold() as hold:` keeps signals back until `hold.let_go()`, or the end of the block. For the main thread."""

    def __enter__(self) -> Self:
        _holds.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Raises Ended if a signal came meanwhile."""
        if self in _holds:
            _holds.remove(self)
        if _waiting and not _holds:
            _end(_waiting[0])


def listen() -> None:
    """From now on a signal ends the demo."""
    for number in _ENDING:
        signal.signal(number, _came)


def _came(number: int, _frame: object) -> None:
    if _holds:
        _waiting.append(number)
    else:
        _end(number)


def _end(number: int) -> NoReturn:
    _waiting.clear()
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # the stage is being taken down: once is enough
    raise Ended(number)
