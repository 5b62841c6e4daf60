"""Processes that are forked to do one thing and are killed: for what must hold whenever one of several dies."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator


def fork(work: Callable[[], object]) -> int:
    """The pid of a process that does `work` and ends: with 0, or with 1 where that raised."""
    with warnings.catch_warnings():
        # Threads of other tests may still be ending; a child touches nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill(pid: int, *, reap: bool = True) -> None:
    """Ends it, by kill -9. Without `reap` it can still be asked for its processor time."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if reap:
        os.waitpid(pid, 0)


def wait(pid: int) -> int:
    """Its exit status, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """A process that does `work` meanwhile, and is killed at the end."""
    pid = fork(work)
    try:
        yield pid
    finally:
        kill(pid)
