"""The directory in which gateway-up leaves what gateway-down, and the next gateway-up, must know.

    lock                          held by whichever of the two is at work
    installed.json                the layout, the rules directory, and the network namespace all of it is in
    keeper.json, keeper.log       the process that keeps the ports in step with the rules
    gateway.json, gateway.log     the gateway, where --start started it
    home/                         its home directory, where its user has none

It belongs to root, so nobody else decides which process is ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layout import Layout
from .terminal import Failure

DEFAULT = "/run/egress-gateway"
_NAMES = ("installed.json", "keeper.json", "keeper.log", "gateway.json", "gateway.log")


@dataclass(frozen=True, slots=True)
class Installed:
    """What gateway-up has set up."""

    layout: Layout
    rules: str
    namespace: int
    """The number of the network namespace."""
    command: tuple[str, ...] = ()
    """What the gateway was started with; empty where it was not started here."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Installed:
        layout = Layout.from_json(data["layout"])
        return cls(layout, data["rules"], data["namespace"], tuple(data["command"]))

    def to_json(self) -> dict[str, Any]:
        return {
            "layout": self.layout.to_json(),
            "rules": self.rules,
            "namespace": self.namespace,
            "command": list(self.command),
        }


@dataclass(frozen=True, slots=True)
class State:
    directory: Path

    @property
    def keeper(self) -> Path:
        return self.directory / "keeper.json"

    @property
    def keeper_log(self) -> Path:
        return self.directory / "keeper.log"

    @property
    def gateway(self) -> Path:
        return self.directory / "gateway.json"

    @property
    def gateway_log(self) -> Path:
        return self.directory / "gateway.log"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def check(self) -> None:
        """Raises `Failure` unless the directory is ours alone, or is not there yet."""
        try:
            status = os.lstat(self.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failure(f"{self.directory} cannot be read: {error.strerror}") from None
        if not self.directory.is_dir() or self.directory.is_symlink():
            raise Failure(f"{self.directory} is not a directory (name another one with --state-dir)")
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            fix = "it must belong to root and be writable by nobody else; name another one with --state-dir"
            raise Failure(f"{self.directory} belongs to others ({fix})")

    @contextlib.contextmanager
    def locked(self, patience: float = 30.0) -> Iterator[None]:
        """One command at a time; the directory is there meanwhile. Raises `Failure`."""
        self.check()
        deadline = time.monotonic() + patience
        try:
            while (descriptor := self._lock()) is None:
                if time.monotonic() > deadline:
                    raise Failure("another gateway-up or gateway-down is at work (wait for it to end)")
                time.sleep(0.05)
        except OSError as error:
            raise Failure(f"{self.directory} cannot be used: {error.strerror}") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int | None:
        """A descriptor that holds the lock, until it is closed; None while somebody else does."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = self.directory / "lock"
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # gateway-down removes the file it holds, so what we hold may be nobody's lock any more.
                if os.fstat(descriptor).st_ino != os.stat(file).st_ino:
                    return None
            except (BlockingIOError, FileNotFoundError):
                return None
            stack.pop_all()
            return descriptor

    def installed(self) -> Installed | None:
        """None where nothing is, or what is there cannot be read."""
        try:
            data = json.loads((self.directory / "installed.json").read_text(encoding="utf-8"))
            return Installed.from_json(data)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, installed: Installed) -> None:
        text = json.dumps(installed.to_json(), indent=2) + "\n"
        (self.directory / "installed.json").write_text(text, encoding="utf-8")

    def clear(self) -> None:
        """Removes what this program has put there, and the directory if it is empty then but for the lock."""
        for name in _NAMES:
            (self.directory / name).unlink(missing_ok=True)
        shutil.rmtree(self.home, ignore_errors=True)
        if os.listdir(self.directory) == ["lock"]:
            (self.directory / "lock").unlink()
            self.directory.rmdir()


def namespace() -> int:
    """The number of the network namespace this process is in."""
    return os.stat("/proc/self/ns/net").st_ino
