"""How often something may happen. Pure: time is an argument, in the caller's monotonic seconds."""

from __future__ import annotations

from collections import OrderedDict


class Buckets:
    """One token bucket for each client, of a bounded number of clients.

    A bucket that is forgotten is full again. The one that was not used for the longest time is forgotten first, and
    after `burst / rate` seconds without use it is full anyway.
    """

    def __init__(self, clients: int = 10_000) -> None:
        self._most = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now: float, *, rate: float, burst: float) -> bool:
        """Takes a token, if there is one; `rate` come back a second, up to `burst`."""
        tokens, since = self._buckets.pop(client, (burst, now))
        tokens = min(burst, tokens + max(0.0, now - since) * rate)
        granted = tokens >= 1.0
        if len(self._buckets) >= self._most:
            self._buckets.popitem(last=False)
        self._buckets[client] = (tokens - 1.0 if granted else tokens, now)
        return granted


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
