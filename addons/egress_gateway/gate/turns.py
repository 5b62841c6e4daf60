"""How often something may happen, for each client. Pure: time is an argument, in the caller's monotonic seconds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

SHARED_PLACES = 16_384  # a power of two
_MASK = SHARED_PLACES - 1


class Turns(Protocol):
    def take(self, client: str, now: float, *, rate: float, burst: float) -> bool:
        """Takes a turn of `client`, if there is one; `rate` come back a second, up to `burst`."""


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
        tokens, since = self._buckets.pop(client, (burst, now))
        tokens = min(burst, tokens + max(0.0, now - since) * rate)
        granted = tokens >= 1.0
        if len(self._buckets) >= self._most:
            self._buckets.popitem(last=False)
        self._buckets[client] = (tokens - 1.0 if granted else tokens, now)
        return granted


class SharedBuckets:
    """The same for several processes, in `cells` that they share.

    A bucket is one number, when it will be full again, at two places that the client's hash points to; of these the
    emptier bucket is what another client has left there, so the fuller one counts. No process owns a place: of two
    that take a turn in the same microsecond one may go uncounted. A process that dies leaves nothing to be taken back.
    """

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def take(self, client: str, now: float, *, rate: float, burst: float) -> bool:
        cells = self._cells
        hashed = hash(client)
        one, two = hashed & _MASK, (hashed >> 32 & _MASK) + SHARED_PLACES
        here, there = cells[one], cells[two]
        full_at = max(now, min(here, there)) + 1.0 / rate
        if full_at - now > burst / rate + _ROUNDING:
            return False
        if here < full_at:
            cells[one] = full_at
        if there < full_at:
            cells[two] = full_at
        return True


_ROUNDING = 1e-9
