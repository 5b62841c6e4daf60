"""Whether bytes come so fast that it pays to let them gather for a moment, and to take many at once.

A thousandth of a second is nothing to whoever moves half a megabyte in a few of them, and a lot to whoever asks and
waits for a short answer; so only what the former sends gathers (`splice.py`), and no longer once it is slower.
"""

from __future__ import annotations

SPAN = 0.004
"""Seconds over which is measured, at least; where it took twice that, there was a pause."""
FAST = 1 << 26
"""Bytes a second: half of what a link of a gigabit carries."""
LEAST = int(SPAN * FAST)
"""Bytes; what has moved fewer in all its life was never fast."""


class Rate:
    """Of one direction. Times are seconds of any clock that only goes forward."""

    __slots__ = ("_count", "_fast", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0
        self._fast = False

    def look(self, now: float, count: int) -> bool:
        """Whether it is fast now; `count` are all the bytes that it has moved so far. To be asked whenever it has moved
        some."""
        span = now - self._since
        if span >= SPAN:
            self._fast = span < 2 * SPAN and count - self._count >= span * FAST
            self._since, self._count = now, count
        return self._fast
