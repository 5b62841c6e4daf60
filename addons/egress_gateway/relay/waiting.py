"""What a task waits for when it waits for a socket: resumed in the very callback that says there is something.

A future is made anew for each wait, and tells its task in the next turn of the loop. In between the loop has asked
the kernel again and been told of the same bytes, since nobody has read them yet. This is used again and again by one
reader, and goes on with the task at once.

It is what `asyncio.Task` takes for a future, and no more: `_asyncio_future_blocking`, `add_done_callback`, `result`,
`cancel`, `get_loop` (PEP 3156 leaves them to be implemented by others).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class Waiting:
    """`await waiting` until `wake` or `wake_soon`. One task at a time."""

    __slots__ = ("_asyncio_future_blocking", "_error", "_loop", "_resume")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._resume: Callable[[Any], object] | None = None
        self._error: BaseException | None = None

    @property
    def is_awaited(self) -> bool:
        return self._resume is not None

    def wake(self) -> None:
        """Goes on with who waits, now, in the context variables of the caller. Only from a callback of the loop, never
        from within a task."""
        resume = self._resume
        if resume is not None:
            self._resume = None
            resume(self)

    def wake_soon(self) -> None:
        """Goes on with who waits, in the next turn of the loop."""
        if self._resume is not None:
            self._loop.call_soon(self.wake)

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        try:
            yield self
        finally:
            self._resume = self._error = None

    # --- what the task calls ---

    def add_done_callback(self, resume: Callable[[Any], object], *, context: Context) -> None:
        self._resume = resume

    def result(self) -> None:
        if self._error is not None:
            raise self._error

    def cancel(self, msg: object = None) -> bool:
        if self._resume is None:
            return False
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._loop.call_soon(self.wake)
        return True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop
