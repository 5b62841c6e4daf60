"""The names by which ps and pgrep tell the processes of a gateway apart (`ps -o comm`, `pgrep -x`).

All of them are forked from one, and would have its name. Nothing relies on a name: where the system has no such call,
nothing happens.
"""

from __future__ import annotations

import ctypes

SUPERVISOR = "egress-gateway"
WORKER = "egress-worker"
TELEMETRY = "egress-metrics"

_PR_SET_NAME = 15
_LONGEST = 15
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def be_called(name: str) -> None:
    """Names this process; see prctl(2), PR_SET_NAME. No more than 15 bytes are shown."""
    if _prctl is not None:
        _prctl(_PR_SET_NAME, name.encode()[:_LONGEST])
