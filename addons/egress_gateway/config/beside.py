"""Long work beside an event loop that serves: in a thread, and never long at a stretch.

What holds up the loop is not the work, it is who has the interpreter meanwhile:

- Python's threads take turns of 5 ms, and the loop gives its turn away at every system call. While long work goes on
  the turns are short, so that a request waits for a few hundredths of a millisecond each time.
- On a machine that has too much to do, the system takes the processor away from whoever has used up its share, and with
  it the interpreter. So the work rests often, and its share is not used up.
- Collecting garbage stops everybody for as long as there are objects to look at, and many new objects bring on
  collections of all there are. So collections wait while a file is read, whose tree of nodes goes away by itself, and
  then what is new is looked at file by file. What is kept is left out of every collection from then on (`left_out.py`).
- To let go of many objects at once is one long act as well. So they are let go one by one.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

TURN = 0.00005
"""Seconds for which one thread keeps the interpreter from another that wants it."""
PIECE = 0.0005
REST = 0.001
"""Seconds of work, and of rest after it."""
_MANY_OBJECTS = 2_000

_at_it = 0
_before: tuple[float, bool] = (0.005, True)
_lock = Lock()


async def beside[**P, T](function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns or raises, which runs in a thread."""

    def run() -> T:
        with short_turns():
            return function(*args, **kwargs)

    return await asyncio.to_thread(run)


@contextmanager
def short_turns() -> Iterator[None]:
    """Threads take short turns and no garbage is collected; the last one out puts back what was."""
    global _at_it, _before
    with _lock:
        if _at_it == 0:
            _before = sys.getswitchinterval(), gc.isenabled()
            sys.setswitchinterval(min(TURN, _before[0]))
            gc.disable()
        _at_it += 1
    try:
        yield
    finally:
        with _lock:
            _at_it -= 1
            if _at_it == 0:
                sys.setswitchinterval(_before[0])
                if _before[1]:
                    gc.enable()


def settle() -> None:
    """What is there by now is there to stay, and no collection looks at it again. For the moment before one serves."""
    gc.collect()
    gc.freeze()


class Pauses:
    """To be called after every small piece of work: rests now and then, and looks at new objects if there are many."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since < PIECE:
            return
        look_at_new_objects()
        time.sleep(REST)
        self._since = time.perf_counter()


def with_pauses[T](items: Iterable[T]) -> Iterator[T]:
    """The items, with rests in between."""
    pauses = Pauses()
    for item in items:
        yield item
        pauses()


def look_at_new_objects() -> None:
    """Collects garbage among the newest objects if there are many of them.

    Those that stay are not yet counted among the old, which would bring on a collection of all there are.
    """
    if gc.get_count()[0] > _MANY_OBJECTS:
        gc.collect(0)


def let_go(parts: list[object]) -> None:
    """Drops `parts` one by one; for what nobody else holds any more, or soon will not."""
    pauses = Pauses()
    while parts:
        parts.pop()
        pauses()
