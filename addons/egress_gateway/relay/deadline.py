"""How long one task waits for others: one timer for all its waits, one after another.

`asyncio.timeout` sets and cancels a timer for each wait. Here a wait only notes when it is over; the timer that is
set anyway looks at that note when it goes off, and is set again for what is still to come. So a connection that is
busy sets about one timer a second.

The rules of this file:

- One task, the one that waits first, and one wait at a time.
- A wait that is over raises TimeoutError in its task, as `asyncio.timeout` does, whatever the task waits for.
- `touch` may be called by anybody, at any time, and never brings back what has run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from types import TracebackType
from typing import Self

LOOK_EVERY = 1.0
"""Seconds between two calls of `look`."""
_GRAIN = 0.002
"""Seconds by which a loop's timer may go off early: uvloop counts in milliseconds."""


class Deadline:
    """`with deadline.within(seconds):` around what may take so long, and again so long after each `touch`."""

    __slots__ = ("_cancelling", "_due", "_look", "_loop", "_over", "_rings", "_seconds", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings = inf
        """When the timer goes off; infinite where none is set."""
        self._due = inf
        self._seconds = inf
        self._look: Callable[[], None] | None = None
        self._over = False
        self._cancelling = 0

    def within(self, seconds: float, look: Callable[[], None] | None = None) -> Self:
        """Sets the time for the block that follows; `look` is called about once a second within it."""
        now = monotonic()
        self._seconds = seconds
        self._due = due = now + seconds
        self._look = look
        if look is not None and seconds > LOOK_EVERY:
            due = now + LOOK_EVERY
        if due < self._rings:
            self._set(due, now)
        return self

    def touch(self) -> None:
        """Something has moved: the whole time begins anew."""
        if self._due != inf and not self._over:
            self._due = monotonic() + self._seconds

    def stop(self) -> None:
        """Lets the block take as long as it likes: somebody else keeps the time from here on."""
        self._due = inf
        self._look = None

    def close(self) -> None:
        """Nobody waits any more."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rings = inf

    def __enter__(self) -> None:
        task = self._task
        if task is None:
            task = self._task = asyncio.current_task()
            if task is None:
                raise RuntimeError("only a task can be waited for")
        self._cancelling = task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._due = inf
        self._look = None
        if self._over:
            self._over = False
            # Who else has cancelled the task wants it to end, and not to hear of the time.
            if self._task is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _set(self, when: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = when
        self._timer = self._loop.call_later(when - now, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings = None, inf
        if self._due == inf:
            return
        now = monotonic()
        if self._due <= now + _GRAIN:
            self._over, self._due = True, inf
            if self._task is not None:
                self._task.cancel()
            return
        self._set(self._due if self._look is None else min(self._due, now + LOOK_EVERY), now)
        if self._look is not None:
            self._look()
