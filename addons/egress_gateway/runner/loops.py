"""uvloop where it helps and is there.

The relay runs on either loop. mitmproxy's own layers need asyncio's, which can be taught to dial the judged addresses
(hooks/inspect/pin.py); uvloop's cannot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

OFF = "EGRESS_NO_UVLOOP"


@dataclass(frozen=True, slots=True)
class Loop:
    make: Callable[[], asyncio.AbstractEventLoop]
    name: str
    because: str = ""
    """Why it is not uvloop, where that would do; one line for the operator."""


def choose(relays: bool) -> Loop:
    """`relays` says that no layer of mitmproxy's is in use."""
    if not relays:
        return Loop(asyncio.new_event_loop, "asyncio")
    if os.environ.get(OFF):
        return Loop(asyncio.new_event_loop, "asyncio", f"without uvloop, as {OFF} says")
    try:
        import uvloop
    except ImportError as error:
        return Loop(asyncio.new_event_loop, "asyncio", f"without uvloop ({error})")
    return Loop(uvloop.new_event_loop, "uvloop")
