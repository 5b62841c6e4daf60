"""What ps shows of a process of ours, so that supervisor, workers and telemetry can be told apart.

All of them are forked from one that was executed, so each would have its name (`ps -o comm`) and its arguments
(`ps -f`, `ps -o args`). The name is asked of the kernel. The arguments are where the kernel laid them when the program
was executed, and it shows what is written there, as servers have long made use of; Python has copies of its own.

A name is a help and nothing relies on it: where the system does not allow it, nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_PR_SET_NAME = 15
_LONGEST_NAME = 15
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_PROGRAM = "egress_gateway.runner"
"""Whoever looks for the gateway's processes by their arguments (`pgrep -f`) finds all of them by this."""
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 48 - 3, 49 - 3
"""Of the fields of /proc/PID/stat, which proc_pid_stat(5) counts from 1, in those from the state on."""


def be_called(name: str) -> None:
    """The name of this process; of the longest fifteen bytes are shown."""
    _prctl(_PR_SET_NAME, name.encode()[:_LONGEST_NAME])


def show_role(role: str) -> None:
    """This process's arguments are shown as `egress_gateway.runner: ROLE`, then its options, as far as there is room.

    There is for all of them, where that is shorter than what stood before the options, as it is in a `.venv`.
    """
    with suppress(OSError, ValueError, IndexError):
        begin, end = _arguments()
        arguments = "\0".join((f"{_PROGRAM}: {role}", *sys.argv[1:]))
        room = end - begin
        # The last byte stays zero: another one would tell the kernel that the text goes on behind it.
        shown = os.fsencode(arguments)[: room - 1].ljust(room, b"\0")
        memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(memory, shown, begin)
        finally:
            os.close(memory)


def _arguments() -> tuple[int, int]:
    """Where they begin and end in memory. Raises OSError where that is not told."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END])
    if not 0 < begin < end:
        raise OSError("the kernel does not say where the arguments are")
    return begin, end
