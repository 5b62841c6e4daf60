"""Scripts of the user's (`-s`): mitmproxy loads them in tasks, so they wait until there is an event loop.

All else that the user asked for is read and checked before the first fork, without one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mitmproxy.master import Master

_TURNS = 3
"""Of the loop, in which a script's task has come to load it."""


def hold_back(master: Master) -> None:
    """Option `scripts` may be set, and nothing is loaded."""
    setattr(_loader(master), "configure", lambda _: None)  # noqa: B010  # a method of mitmproxy's


async def load(master: Master) -> None:
    """Loads what was held back. Raises OptionsError where a script is not there; its own errors are logged."""
    loader = _loader(master)
    if "configure" in vars(loader):
        del loader.configure
        loader.configure({"scripts"})
        for _ in range(_TURNS):
            await asyncio.sleep(0)


def _loader(master: Master) -> Any:
    return master.addons.get("scriptloader")
