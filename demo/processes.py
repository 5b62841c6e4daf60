"""Programs that end with the demo, however it ends: each is ended by its own number, and dies with its parent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from .ending import Hold

# A tiny interpreter asks the kernel for a signal when its parent dies (PR_SET_PDEATHSIG survives exec), then
# becomes the program: even a demo that is killed outright leaves nothing behind.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
if os.getppid() != int(sys.argv[2]): os._exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 15.0


def _launched(command: Sequence[str], when_parent_dies: signal.Signals) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(int(when_parent_dies)), str(os.getpid()), *command]


def run_to_end(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command. Where the demo is to end meanwhile, so is the command, with all that it has started, in time to
    take back what it has begun."""
    with (
        Hold() as hold,
        subprocess.Popen(
            _launched(command, signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        ) as popen,
    ):
        try:
            hold.let_go()
            output, errors = popen.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.communicate(timeout=_PATIENCE)
            if popen.returncode is None:
                os.killpg(popen.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(list(command), popen.returncode, output, errors)


class ProgramFailed(Exception):
    """A program ended too early, or was not ready in time; the text has its last words."""


class Program:
    """A running program with its output collected. Start it from the main thread, and leave it with `with`."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self._lines: list[str] = []
        with Hold():
            self._popen = subprocess.Popen(
                _launched(command, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its programs
            )
            self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
            self._reader.start()
            _running.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return "".join(list(self._lines))

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def wait_for(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """The first match in its output, as soon as there is one."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.ended
            if ended:
                self._reader.join(1)
            found = re.search(pattern, self.output)
            if found:
                return found
            if ended:
                raise ProgramFailed(f"{self.name} ended before it was ready:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{self.name} was not ready within {timeout:g} s:\n{self.last_words()}")
            time.sleep(0.02)

    def last_words(self, lines: int = 15) -> str:
        return "".join(self._lines[-lines:]).rstrip()

    def stop(self, timeout: float = 5.0) -> None:
        """SIGTERM, then SIGKILL; also for what it has started itself."""
        if not self.ended:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
        if self._popen.returncode is None:
            # Its group has the number of its leader, which is still there, so nobody else can have it.
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
        self._reader.join(1)
        if self in _running:
            _running.remove(self)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as stream:
            for line in stream:
                self._lines.append(line.decode(errors="replace"))


_running: list[Program] = []


def end_all() -> None:
    """Ends what was started and is still running, since a signal struck before its `with`."""
    for program in list(_running):
        program.stop()
