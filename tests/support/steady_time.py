"""An event loop whose time passes while it waits, and hardly while it is kept from running.

For tests that have both ends of a conversation in one event loop. Where the machine stops for a second, every limit of
a few tenths is over by its clock, although neither end had a chance to do its part. In here such a second counts as a
millisecond, so that a limit is over when the loop has really waited for it, and what a test measures by the loop's own
`time` is what it waited for. A wait that another thread has ended counts as a millisecond as well: of threads it tells
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

_MOST = 0.001
"""Seconds that one turn of the loop, or one wait that something has ended, counts for."""


@contextlib.contextmanager
def steady_time(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Inside, `loop`, which is one of asyncio's own, has such a time."""
    made: Any = loop
    selector: Any = made._selector
    assert "time" not in vars(loop), "its time is steady already, and would go on as before when this one ends"
    real_select = selector.select
    now, looked_at = loop.time(), time.monotonic()

    def pass_by(most: float) -> None:
        nonlocal now, looked_at
        really = time.monotonic()
        now += min(really - looked_at, most)
        looked_at = really

    def select(timeout: float | None = None) -> Any:
        pass_by(_MOST)
        events = real_select(timeout)
        # What came has not been waited for: it comes from this very loop, and was on its way before.
        pass_by(_MOST if events or timeout is None else timeout)
        return events

    made.time, selector.select = (lambda: now), select
    try:
        yield
    finally:
        del made.time, selector.select
