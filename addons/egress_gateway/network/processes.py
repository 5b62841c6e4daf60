"""Processes that outlive the command that started them, and how another command ends exactly these.

A process number is given anew after its process has ended, so a pid file holds the moment of the start as well, and
the boot it happened in. A signal goes through a pidfd whose process was looked at after the pidfd was opened.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: int
    """Clock ticks between the boot and its start, as the kernel counts them."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None when there is none."""
        started = _started(pid)
        return None if started is None else cls(pid, started, _boot())

    @classmethod
    def read(cls, file: Path) -> Process | None:
        """What `write` wrote; None when it is not there or is something else."""
        try:
            data = json.loads(file.read_text(encoding="ascii"))
            return cls(int(data["pid"]), int(data["started"]), str(data["boot"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, file: Path) -> None:
        data = {"pid": self.pid, "started": self.started, "boot": self.boot}
        file.write_text(json.dumps(data) + "\n", encoding="ascii")

    @property
    def runs(self) -> bool:
        return self.boot == _boot() and _started(self.pid) == self.started

    def stop(self, patience: float = 10.0) -> bool:
        """SIGTERM, and SIGKILL after `patience` seconds. Whether it ran; it does not any more."""
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return False
            stack.callback(os.close, descriptor)
            if not self.runs:
                return False
            for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
                if select.select([descriptor], [], [], seconds)[0]:
                    break
            return True


def _started(pid: int) -> int | None:
    """The 22nd field of /proc/PID/stat; None for one that is gone, or only waits to be collected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
