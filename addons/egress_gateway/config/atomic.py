"""Files that are there whole or not at all, and one writer at a time.

New contents go to a hidden file in the same directory, onto the disk, and then into place by one rename: a gateway that
reads at any moment sees the old file or the new one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


class Busy(Exception):
    """Somebody else holds the lock."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Contents on the disk that wait for their name."""

    temporary: str
    file: str

    def commit(self) -> None:
        os.replace(self.temporary, self.file)

    def discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.temporary)


def stage(file: str, data: bytes) -> Staged:
    """Writes `data` beside `file`, with its mode and owner where it exists. Raises OSError."""
    directory, name = os.path.split(file)
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(6)}.tmp")
    staged = Staged(temporary, file)
    try:
        # Not `tempfile`, whose files only their owner can read: the gateway may run as somebody else.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as opened:
            with suppress(FileNotFoundError):
                _adopt(opened.fileno(), os.stat(file))
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        staged.discard()
        raise
    return staged


def _adopt(descriptor: int, status: os.stat_result) -> None:
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, status.st_mode & 0o7777)


def sync_directory(directory: str) -> None:
    """Puts renames and removals in `directory` onto the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(file: str, patience: float = 10.0) -> Iterator[None]:
    """Holds the lock `file`; waits `patience` seconds for it, then raises `Busy`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o666)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
