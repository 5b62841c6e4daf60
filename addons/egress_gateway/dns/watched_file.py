"""A parsed file that is read again when it changed.

- Asking is cheap: the file's state is looked at no more often than every `recheck` seconds.
- "Changed" is a new inode, size or modification time, so that both a rename and a write in place are
  noticed.
- A file that cannot be read now keeps what it last said: a resolver must not change its mind because a
  file is just being replaced. One that could never be read says what the parser says of an empty text.
- No more than `MAX_SIZE` bytes are read, at once and in the event loop: these are small local files.
"""

from collections.abc import Callable
from pathlib import Path

MAX_SIZE = 4 * 1024 * 1024


class WatchedFile[T]:
    def __init__(self, path: Path, parse: Callable[[str], T], *, recheck: float = 1.0) -> None:
        self._path = path
        self._parse = parse
        self._recheck = recheck
        self._looked_at: float | None = None
        self._state: tuple[int, int, int] | None = None
        self._value = parse("")

    def get(self, now: float) -> T:
        """What the file says at `now` (monotonic seconds); the same object until it says something else."""
        if self._looked_at is None or now - self._looked_at >= self._recheck:
            self._looked_at = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if state == self._state:
                return
            with self._path.open("rb") as file:
                text = file.read(MAX_SIZE).decode("utf-8", "replace")
        except OSError:
            return
        self._state = state
        if (value := self._parse(text)) != self._value:
            self._value = value
