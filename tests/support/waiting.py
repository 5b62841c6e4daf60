"""Wait for what happens in another task, thread or process, with a deadline and a reason when it did not."""

import asyncio
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


async def until(look: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
    """As `eventually`, for what the same event loop has to do meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            while not look():  # noqa: ASYNC110 - what is looked at has no event to wait for
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
