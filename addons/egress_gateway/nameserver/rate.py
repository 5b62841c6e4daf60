"""How often something may be said. Pure: time is an argument, in the caller's monotonic seconds."""

from __future__ import annotations


class Seldom:
    """Whether something may be said again: once in `seconds` for each word. For a fixed set of words."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._said: dict[str, float] = {}

    def may_say(self, word: str, now: float) -> bool:
        said = self._said.get(word)
        if said is not None and now - said < self._seconds:
            return False
        self._said[word] = now
        return True
