"""What is to run: who listens, and how many workers. Pure, and never silent about what was not meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

MOST_PER_CORE = 4
MOST = 256
OURS = frozenset({"regular", "socks5", "transparent", "dns"})
"""Modes whose sockets we open ourselves; the others' are mitmproxy's, and cannot be shared."""


class Listener(Enum):
    """Who accepts clients, and what serves them."""

    RELAY = "relay"
    """We, and the relay."""
    LAYERS = "layers"
    """We, and mitmproxy's layers."""
    MITMPROXY = "mitmproxy"
    """mitmproxy itself, as in mitmdump."""


@dataclass(frozen=True, slots=True)
class Plan:
    listener: Listener
    workers: int
    remarks: tuple[str, ...]
    """Each a line for the operator: what is other than was asked for."""


def make(wanted: int | None, cores: int, modes: Sequence[str], *, relay: bool, needs_flows: Sequence[str]) -> Plan:
    """`wanted` workers, or one a core; `modes` by their type names; `needs_flows` says what works on flows."""
    remarks = []
    workers = wanted or cores
    most = min(MOST, MOST_PER_CORE * cores)
    if workers > most:
        remarks.append(f"{workers} workers are more than make sense on {_cores(cores)}; there are {most}")
        workers = most
    alone = [f"mode {mode} cannot be shared" for mode in dict.fromkeys(modes) if mode not in OURS]
    alone += [f"{what} works on flows" for what in needs_flows]
    if alone:
        if workers > 1:
            remarks.append(f"one worker, because {' and '.join(alone)}")
        return Plan(Listener.MITMPROXY, 1, tuple(remarks))
    return Plan(Listener.RELAY if relay else Listener.LAYERS, workers, tuple(remarks))


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0))


def _cores(count: int) -> str:
    return f"{count} core{'' if count == 1 else 's'}"
