"""What came back to one try: facts only, they are judged in `judge.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    ANSWER = "an answer"
    CLOSED = "connected, then closed without a byte"
    QUIET = "connected, then nothing"
    RESET = "a TCP reset instead of a connection"
    ERROR = "an ICMP error, other than the next"
    EXPIRED = "an ICMP error: the packet's time to live was over"
    FILTERED = "this machine's own packet filter did not let it out"
    UNSENT = "this machine could not send it"
    SILENT = "nothing"


@dataclass(frozen=True)
class Heard:
    kind: Kind
    data: bytes = b""
    """The answer."""
    words: str = ""
    """What the ICMP error says, e.g. `port unreachable`, or why this machine could not send."""
    by: str = ""
    """The address that sent the ICMP error; empty where the system does not tell (TCP)."""

    @property
    def connected(self) -> bool:
        """For TCP: whether somebody took the connection."""
        return self.kind in (Kind.ANSWER, Kind.CLOSED, Kind.QUIET)


MOST_LATE = 100
"""Packets that are looked at when the time is over: what came in time counts, however late this machine lets us
look."""


def left(deadline: float) -> float:
    """Seconds until `deadline` (of the monotonic clock); a little when it is over, so that a try is always made."""
    return max(0.05, deadline - time.monotonic())
