"""What all probes of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from egress_gateway.containment.outcome import Verdict
from egress_gateway.containment.place import Place


@dataclass(frozen=True)
class Setting:
    """One for each family of addresses."""

    place: Place
    denied_name: str
    """A name that no rule allows."""
    half: float
    """When (monotonic clock) a probe that tries twice goes on to the second, so that both have the same time."""
    deadline: float
    """When it must be done."""


Probe = Callable[[Setting], Verdict]
"""Raises `Untested` when this machine cannot try."""
