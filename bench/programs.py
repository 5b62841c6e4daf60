"""Programs that end with the bench, however it ends: each is ended by its own number, and dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class ProgramFailed(Exception):
    """A program ended too early, was not ready in time, or said that it failed; the text has its last words."""


def _die_with(parent: int) -> None:
    """Runs in the child, before the program does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


class Program:
    """A running program, whose output goes to a file. Leave it with `with`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.folder = folder
        self.output_path = folder / f"{name}.out"
        parent = os.getpid()
        with self.output_path.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(env) if env is not None else None,
                start_new_session=True,  # Ctrl-C is for the bench, which then ends its programs
                preexec_fn=lambda: _die_with(parent),  # the bench has one thread while it starts programs
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Until somebody listens on the port of this network's loopback."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._popen.poll() is not None:
                raise ProgramFailed(f"{self.name} ended before it was ready:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{self.name} was not ready within {timeout:g} s:\n{self.last_words()}")
            time.sleep(0.02)

    def check(self) -> None:
        """ProgramFailed when it is not running any more."""
        if self._popen.poll() is not None:
            raise ProgramFailed(f"{self.name} ended while it was measured:\n{self.last_words()}")

    def wait(self, timeout: float) -> None:
        """Until it has ended by itself; ProgramFailed when it does not, or says that it failed."""
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ProgramFailed(f"{self.name} did not end within {timeout:g} s") from error
        if status:
            raise ProgramFailed(f"{self.name} failed with exit status {status}:\n{self.last_words()}")

    def last_words(self, lines: int = 15) -> str:
        text = self.output_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, timeout: float = 5.0) -> None:
        """SIGTERM, then SIGKILL; also for what it has started itself."""
        if self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
        if self._popen.returncode is None:
            # Its group has the number of its leader, which is still there, so nobody else can have it.
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()


def run(name: str, command: Sequence[str], folder: Path, timeout: float) -> str:
    """Runs a program to its end; its standard output. ProgramFailed where it fails or does not end."""
    parent = os.getpid()
    popen = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=lambda: _die_with(parent),
    )
    try:
        output, errors = popen.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProgramFailed(f"{name} did not end within {timeout:g} s") from error
        raise
    if popen.returncode:
        words = (errors + output).strip().splitlines()[-15:]
        raise ProgramFailed(f"{name} failed with exit status {popen.returncode}:\n" + "\n".join(words))
    return output
