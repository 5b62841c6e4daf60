"""Datagrams of any kind that must not get through: one without a limit, then one that may go one hop too far."""

from __future__ import annotations

from typing import Callable, Optional

from egress_gateway.containment import judge
from egress_gateway.containment.attempt.heard import Heard
from egress_gateway.containment.outcome import Verdict

from .setting import Setting

Attempt = Callable[[Optional[int], float], Heard]
"""One try; takes the limit of hops, if there is one, and the deadline."""


def judged(setting: Setting, attempt: Attempt, target: str) -> Verdict:
    full = attempt(None, setting.half)
    past = attempt(setting.place.hops + 1, setting.deadline) if judge.needs_past(full) else None
    return judge.datagram(full, past, target, setting.place)
