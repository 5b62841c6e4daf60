"""Whether bytes come so fast that it pays to let them gather for a moment, and to take many at once.

A thousandth of a second is nothing to whoever moves half a megabyte in a few of them, and a lot to whoever asks and
waits for a short answer; so only the first of them gather (`splice.py`), and stop as soon as they are slower.
"""

from __future__ import annotations

SPAN = 0.004
"""Seconds over which is measured, at least; at twice that, there was a pause."""
FAST_BYTES = 1 << 19
"""In such a span: at least 64 MiB a second, half of what a link of a gigabit carries."""


class Rate:
    """Of one direction. Times are seconds of any clock that only goes forward."""

    __slots__ = ("_count", "_since", "fast")

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0
        self.fast = False

    def look(self, now: float, count: int) -> bool:
        """Whether it is fast; `count` are the bytes that have come so far."""
        span = now - self._since
        if span >= SPAN:
            self.fast = span < 2 * SPAN and count - self._count >= FAST_BYTES
            self._since, self._count = now, count
        return self.fast
