"""A time that passes when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace


class HandTime:
    """The time of an event loop, and its timers, which the test moves."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: dict[object, tuple[float, Callable[[], None]]] = {}

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> SimpleNamespace:
        self._timers[timer := object()] = (when, callback)
        return SimpleNamespace(cancel=lambda: self._timers.pop(timer, None))

    def passes(self, seconds: float) -> None:
        self._now += seconds
        for timer, (when, callback) in list(self._timers.items()):
            if when <= self._now and timer in self._timers:
                del self._timers[timer]
                callback()
