"""A connection on which nothing moves is ended after a while, with an answer where one is due.

mitmproxy's own watchdog has begun to sleep for `tcp_timeout` before anybody could tell it otherwise, and closes without
a word. This one tells the gates first, and closes what they leave open.
"""

from __future__ import annotations

import asyncio
import time

from mitmproxy.proxy import events
from mitmproxy.proxy.server import ConnectionHandler

_GRACE = 2.0
"""Seconds for the gates to say their last words."""
_NEVER = 10**9


class Idle(events.Event):
    """Nothing has moved on this client connection for the idle timeout."""


def watch_idle(handler: ConnectionHandler, seconds: float) -> asyncio.Task[None]:
    """Takes the place of `handler`'s own watchdog. Cancel the task when the connection is over."""
    handler.timeout_watchdog.timeout = _NEVER
    return asyncio.create_task(_watch(handler, seconds), name="egress idle watch")


async def _watch(handler: ConnectionHandler, seconds: float) -> None:
    watchdog = handler.timeout_watchdog
    while True:
        # Held up while a hook runs, for a person may be looking at the flow.
        await watchdog.can_timeout.wait()
        left = watchdog.last_activity + seconds - time.time()
        if left <= 0:
            break
        await asyncio.sleep(left)
    await handler.server_event(Idle())
    await asyncio.sleep(_GRACE)
    await handler.on_timeout()
