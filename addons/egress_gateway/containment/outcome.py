"""What one row of the report says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    STOPPED = "stopped"
    """There is no way through."""
    OPEN = "open"
    """Somebody behind the gateway answered, or a packet is known to have passed it."""
    BROKEN = "broken"
    """A way that must lead to the gateway does not, or it ends in a failure of the gateway."""
    UNTESTED = "untested"
    """This machine could not try; neither good nor bad."""
    WORKS = "works"
    """What a rule allows is let through (only with --allowed-name)."""


class Told(str, Enum):
    """What the verdict rests on."""

    GATEWAY = "gateway"
    """The gateway answered, and refused."""
    RESET = "reset"
    UNREACHABLE = "unreachable"
    """An ICMP error."""
    SILENT = "silent"
    ANSWERED = "answered"
    """Somebody answered."""
    PASSED = "passed"
    """A router behind the gateway had the packet in its hands."""
    LOCAL = "local"
    """This machine itself: its packet filter, its routes, its rights."""


@dataclass(frozen=True)
class Verdict:
    status: Status
    told: Told
    how: str
    """For people: one line, no full stop."""


class Untested(Exception):
    """This machine cannot try it; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """One row."""

    check: str
    """What was tried, e.g. `TCP 22 (SSH)`."""
    family: str
    """`IPv4` or `IPv6`."""
    target: str
    """Where to, e.g. `203.0.113.1:22`; empty when nothing was sent."""
    verdict: Verdict
    milliseconds: int
