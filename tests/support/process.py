"""Child processes that do not outlive the tests: they die with the test process, their group with `stop`."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from support import warm

# Between fork and exec there must be no Python code in a process with threads, so a tiny interpreter asks the
# kernel for a SIGKILL when its parent dies (PR_SET_PDEATHSIG, which survives exec) and becomes the program.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Process:
    """A program with its output collected. `start_warm`: where that can be, see `support.warm`.

    Start it in a thread that lives as long as it must (the main thread): the kernel takes the end of that
    thread for the end of the parent.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, *, start_warm: bool = False) -> None:
        self._popen: subprocess.Popen[bytes] | warm.Started
        if start_warm and warm.can_start(command, env):
            self._popen = warm.Started(command, env, cwd)
        else:
            self._popen = _start_cold(command, env, cwd)
        self.pid: int = self._popen.pid
        self.left_behind: list[int] = []  # processes of its group that were still there when it had ended
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, name=f"output of {self.pid}", daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return b"".join(list(self._chunks)).decode(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._popen.poll()

    def wait(self, timeout: float) -> bool:
        """Whether it ended in time. The zombie stays, so that its number is not given to another group."""
        if self._popen.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, SIGKILL after `timeout` s, SIGKILL for the rest of its group; returns the exit code."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            if not self.wait(timeout):
                os.kill(self.pid, signal.SIGKILL)
                self.wait(timeout)
            self.left_behind = [pid for pid in group(self.pid) if pid != self.pid]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self._reader.join(timeout)
        assert code is not None
        return code

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as stream:
            while chunk := os.read(stream.fileno(), 65536):
                self._chunks.append(chunk)


def _start_cold(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> "subprocess.Popen[bytes]":
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
    return subprocess.Popen(
        [*launcher, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (0 state, 1 parent, 2 group); none when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = [(pid, _stat(pid)) for pid in numbers]
    return [pid for pid, stat in found if stat and stat[2] == str(leader) and stat[0] not in "ZX"]


def rss_kib(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
