"""Where lines go: a file, a FIFO, a descriptor, a text stream. Used by one thread, which may wait for it.

The rules of this file:

- A file that was moved away or deleted is opened anew, so that log rotation needs no signal.
- A FIFO without a reader takes nothing, at once. One with a slow reader is waited for, until `deadline`.
- What could not be written is said in numbers (`write` returns what it took) and once in words, in the log.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import time
from typing import Protocol, TextIO

_LOG = logging.getLogger(__name__)
_PIPE_BUF = 4096  # as much as a pipe takes without waiting once it says that it is writable
_LOOK_EVERY = 1.0
_POLL = 0.2


class Output(Protocol):
    deadline: float | None
    """When waiting ends, on the monotonic clock; None while there is no hurry."""

    def write(self, data: bytes) -> int:
        """Writes `data` and returns how many bytes of it were taken. Does not raise OSError."""

    def reopen(self) -> None: ...

    def close(self) -> None: ...


class DescriptorOutput:
    """An open descriptor that belongs to somebody else, such as standard output."""

    def __init__(self, descriptor: int | None, name: str) -> None:
        self.deadline: float | None = None
        self._name = name
        self._torn = False
        """Whether the last thing written was a part of a line, which the next one must not continue."""
        self._failing = False
        self._adopt(descriptor)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        written = 0
        try:
            if self._torn and self._put(memoryview(b"\n")):
                self._torn = False
            while written < len(data) and (taken := self._put(view[written:])):
                written += taken
            self._failing = self._failing and written < len(data)
        except OSError as error:
            self._failed(error)
        if written:
            self._torn = not data[:written].endswith(b"\n")
        return written

    def reopen(self) -> None:
        """Nothing to do: whoever opened it knows."""

    def close(self) -> None:
        """Nothing to do: whoever opened it closes it."""

    def _adopt(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._regular = descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode)

    def _put(self, data: memoryview) -> int:
        """How many bytes were written; 0 if nothing takes them before the deadline. Raises OSError."""
        if self._descriptor is None:
            return 0
        if self._regular:
            return os.write(self._descriptor, data)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while True:
            left = _POLL if self.deadline is None else min(_POLL, self.deadline - time.monotonic())
            if poll.poll(max(0, left) * 1000):
                try:
                    return os.write(self._descriptor, data[:_PIPE_BUF])
                except BlockingIOError:
                    time.sleep(0.001)  # writable, but not for this many bytes
            if left <= 0:
                return 0

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            reason = (error.strerror or str(error)).lower()
            _LOG.error("cannot write to %s: %s; lines are dropped until it works again", self._name, reason)
        self._failing = True


class FileOutput(DescriptorOutput):
    """A file or FIFO by its path. Raises OSError if it cannot be opened, and says what to do."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._looked = time.monotonic()
        self._wanted = False
        try:
            descriptor = self._open()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            text = f"cannot open {name} {path}: {reason}; it must be a path in a folder that may be written"
            raise OSError(error.errno, text) from None
        super().__init__(descriptor, f"{name} {path}")

    def write(self, data: bytes) -> int:
        self._look()
        return super().write(data)

    def reopen(self) -> None:
        """Looks at once, instead of now and then, whether the path names another file. Any thread may call it."""
        self._wanted = True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int | None:
        """A descriptor, or None for a FIFO that nobody reads."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o640)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def _look(self) -> None:
        now = time.monotonic()
        if not self._wanted and now - self._looked < _LOOK_EVERY:
            return
        self._looked, self._wanted = now, False
        if self._still_there():
            return
        try:
            descriptor = self._open()
        except OSError as error:
            self._failed(error)  # the old file, if there is one, is better than none
            return
        if descriptor is not None:
            self.close()
            self._adopt(descriptor)
            self._torn = False

    def _still_there(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            named, opened = os.stat(self._path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


class StreamOutput:
    """A text stream without a descriptor, as tests and embedding programs have."""

    def __init__(self, stream: TextIO) -> None:
        self.deadline: float | None = None
        self._stream = stream

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data.decode("utf-8"))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed, or a character that its encoding has not
            return 0
        return len(data)

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: whoever opened it closes it."""
