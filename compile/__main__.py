"""`python -m compile`, which is what scripts/compile, scripts/setup and scripts/bench run."""

import fcntl
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import IO

from egress_gateway.compiled import CURRENT, PLACE, SOURCES, STAMP, SUFFIX, Stamp, Unusable, digest, library

from . import rooms
from .build import Failed, build


def main(sources: Path = SOURCES, place: Path = PLACE) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half-made is removed then, too
    try:
        make(sources, place)
    except KeyboardInterrupt:
        say("interrupted; what was there before is left")
        return 130
    except Failed as error:
        say(f"{error}; the gateway works without, interpreted, at a higher cost for each request")
        return 1
    return 0


def make(sources: Path, place: Path) -> None:
    """Brings the compiled code in `place` up to date. Raises Failed, and leaves what is there then."""
    if is_up_to_date(sources, place):
        return
    try:
        place.mkdir(exist_ok=True)
        with (place / "lock").open("w") as lock:
            _wait_for(lock)
            if not is_up_to_date(sources, place):
                _make(sources, place)
    except OSError as error:
        raise Failed(f"cannot write {error.filename or place}: {error.strerror or error}") from None


def _wait_for(lock: IO[str]) -> None:
    """Of two that were started together the second finds the work done."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another one to finish")
        fcntl.flock(lock, fcntl.LOCK_EX)


def is_up_to_date(sources: Path, place: Path) -> bool:
    try:
        stamp = Stamp.read(place / CURRENT)
        stamp.verify(place / CURRENT, sources)
    except Unusable:
        return False
    return stamp.made_by == _made_by() and set(stamp.modules) == {*rooms.modules(sources)}


def _make(sources: Path, place: Path) -> None:
    started = time.monotonic()
    modules = rooms.modules(sources)
    # Before they are read: an edit in the meantime must not be taken for compiled.
    digests = {path.as_posix(): digest(sources / path) for path in rooms.relied_on(sources)}
    for stale in place.glob(".new-*"):
        shutil.rmtree(stale)  # of one that was killed
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
    try:
        scratch = folder / "scratch"
        scratch.mkdir()
        build(sources, list(modules.values()), folder, scratch, say)
        shutil.rmtree(scratch)
        Stamp(tuple(modules), digests, digest(library(folder)), SUFFIX, _made_by()).write(folder)
        folder.chmod(0o755)
        made = place / digest(folder / STAMP)[:16]
        shutil.rmtree(made, ignore_errors=True)
        folder.rename(made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # A link, since it can be replaced while a gateway starts, which is left with the old one or the new one.
    before = (place / CURRENT).resolve().name
    link = place / ".link"
    link.unlink(missing_ok=True)
    link.symlink_to(made.name)
    link.rename(place / CURRENT)
    for old in place.iterdir():
        if old.is_dir() and old.name not in (made.name, before, CURRENT):
            shutil.rmtree(old)
    say(f"done in {time.monotonic() - started:.0f} s")


def _made_by() -> str:
    """Changes with whatever decides what the same sources become."""
    recipe = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.*")):
        recipe.update(path.read_bytes())
    return f"mypy {version('mypy')}, {recipe.hexdigest()[:16]}, CC={os.environ.get('CC', '')}"


def say(text: str) -> None:
    print(f"compile: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
