"""Wait for what happens in another thread or process, with a deadline and a reason when it did not."""

import time
from collections.abc import Callable

PATIENCE = 15.0
"""Seconds to wait for what is sure to come: only a failure takes so long, and a busy machine may stop for a while."""


def eventually[T](
    look: Callable[[], T | None], what: str | Callable[[], str], timeout: float = PATIENCE, every: float = 0.01
) -> T:
    """Call `look` until it returns something true, and return that; AssertionError after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        if seen := look():
            return seen
        if time.monotonic() >= deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout:g} s: {text}")
        time.sleep(every)
