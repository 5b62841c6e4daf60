"""CPU time, memory and descriptors of a program and of all that it has started, from /proc.

A process's own CPU clock is user and system time as /proc/PID/stat has them, in nanoseconds instead of hundredths of a
second. What children that are gone have used is with the parent that waited for them (cutime and cstime).
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # the kernel's number of the clock that counts what a whole process has run
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat."""

    parent: int
    own: float
    """Seconds of CPU time of the process itself, to a hundredth."""
    waited_for: float
    """Seconds of its children that have ended."""

    @classmethod
    def parse(cls, text: str) -> Stat:
        # The name in brackets may hold spaces and brackets of its own.
        fields = text.rpartition(")")[2].split()
        ticks = [int(field) for field in fields[11:15]]
        return cls(int(fields[1]), (ticks[0] + ticks[1]) / _TICKS, (ticks[2] + ticks[3]) / _TICKS)


def tree(root: int) -> list[int]:
    """`root` and all that descends from it, as of now."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat is not None:
                children[stat.parent].append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children[pid]
    return found


def cpu_seconds(root: int) -> float:
    """What `root` and its descendants have used so far."""
    return sum(cpu_by_process(root).values())


def cpu_by_process(root: int) -> dict[int, float]:
    """The same by process, each with the children that it has waited for."""
    used: dict[int, float] = {}
    for pid in tree(root):
        stat = _stat(pid)
        if stat is not None:
            used[pid] = _clock(pid, stat) + stat.waited_for
    return used


def proportional_kib(root: int) -> int:
    """PSS: what the processes have to themselves, and their part of what they share with others."""
    return sum(_rollup(pid, "Pss:") for pid in tree(root))


def descriptors(root: int) -> int:
    """Open ones."""
    total = 0
    for pid in tree(root):
        try:
            total += len(os.listdir(f"/proc/{pid}/fd"))
        except _GONE:
            continue
    return total


def _stat(pid: int) -> Stat | None:
    try:
        return Stat.parse(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except _GONE:
        return None


def _clock(pid: int, stat: Stat) -> float:
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:  # it has ended in between, or is a zombie
        return stat.own


def _rollup(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except (*_GONE, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(field)), 0)
