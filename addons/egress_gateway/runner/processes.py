"""A child process: forked from a process that has everything loaded, watched by a descriptor, gone with its parent.

The parent must have one thread, since a fork takes no other along.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""Those that the supervisor listens to."""
_PR_SET_PDEATHSIG = 1
_CRASHED = 70  # EX_SOFTWARE of sysexits.h
_prctl = ctypes.CDLL(None, use_errno=True).prctl


@dataclass(slots=True)
class Child:
    pid: int
    descriptor: int
    """Readable once it has ended."""

    def tell(self, number: signal.Signals) -> None:
        """Nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def reap(self) -> int:
        """Its exit status, once it has ended; negative is the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


def fork(work: Callable[[], int]) -> Child:
    """Runs `work` in a child, whose exit status it returns. A signal to the child finds it with no handlers, but for
    SIGHUP, which waits until `hear_hangups`.

    The child gets SIGKILL when this process ends, in whichever way.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal in between would run the parent's handlers in the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(work, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return Child(pid, os.pidfd_open(pid))


def hear_hangups() -> None:
    """In a child, once it has a handler for SIGHUP: one that came before comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _be_child(work: Callable[[], int], parent: int) -> None:
    """Never returns."""
    code = _CRASHED
    try:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # A terminal's Ctrl-C goes to all processes in it; the supervisor says what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else it has ended before it could be asked to tell
            # SIGHUP asks to read the rules. Who has no handler yet must not end by it.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGHUP})
            code = work()
    except SystemExit as wish:
        code = wish.code if isinstance(wish.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
