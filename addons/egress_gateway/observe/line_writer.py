"""Writes lines in a thread of its own, and drops them rather than let anybody wait.

The rules of this file:

- `put` is all that the traffic pays for: it appends to a queue, which is bounded in entries and in
  characters.
- Everything else, the formatting too, happens in the thread. It is woken once for many lines, and makes a few of them
  at a time: writing these gives the interpreter away, so that it does not hold up requests either.
- A line that is not written is counted, whatever the cause. Two counters, because each has one thread that
  counts.
- The thread starts with the first line, hence after a fork, and is a daemon: it never keeps the process
  alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from egress_gateway.policy.events import Exchange

from .output import Output

_LOG = logging.getLogger(__name__)
_GATHER = 0.05  # seconds in which lines gather before they are written together
_AT_ONCE = 32
_QUEUE_CHARACTERS = 16 * 1024 * 1024


class LineWriter:
    """`write_line` gives the whole line of an exchange, with its line end; it runs in the thread."""

    def __init__(
        self, output: Output, write_line: Callable[[Exchange], bytes], *, name: str, queue_size: int = 10_000
    ) -> None:
        self._output = output
        self._write_line = write_line
        self._name = name
        self._size = queue_size
        self._queue: deque[Exchange] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._characters_in = self._characters_out = 0
        self._not_taken = self._not_written = 0
        self._said = False

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._not_taken + self._not_written

    def put(self, exchange: Exchange) -> None:
        """Has the line of `exchange` written soon, or drops it. The exchange must not change any more."""
        characters = self._characters_in - self._characters_out
        if len(self._queue) >= self._size or characters > _QUEUE_CHARACTERS or self._closing.is_set():
            self._not_taken += 1
            return
        self._characters_in += len(exchange.path)
        self._queue.append(exchange)
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def reopen(self) -> None:
        self._output.reopen()

    def close(self, timeout: float = 2.0) -> None:
        """Writes what is queued, for at most `timeout` seconds; what is left then is dropped and counted."""
        self._output.deadline = time.monotonic() + timeout
        self._closing.set()
        self._wake.set()
        if self._thread is None:
            self._output.close()
        else:
            self._thread.join(timeout + 0.5)
            # The system holds it, e.g. a file server that is gone. It may still go on: who takes a line counts it.
            while self._thread.is_alive() and self._take() is not None:
                self._not_taken += 1

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(_GATHER)
            self._wake.clear()  # before the queue is emptied: who puts something in afterwards sets it again
            closing = self._closing.is_set()
            while self._queue:
                self._write_some()
            if closing:
                self._output.close()
                return

    def _write_some(self) -> None:
        lines: list[bytes] = []
        while len(lines) < _AT_ONCE and (exchange := self._take()) is not None:
            self._characters_out += len(exchange.path)
            try:
                lines.append(self._write_line(exchange))
            except Exception:
                self._not_written += 1
                if not self._said:
                    _LOG.exception("a line of the %s could not be made; such lines are dropped", self._name)
                self._said = True
        data = b"".join(lines)
        written = self._output.write(data)
        self._not_written += data.count(b"\n", written)

    def _take(self) -> Exchange | None:
        """The oldest of the queue; None where there is none, be it that another thread was quicker."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None
