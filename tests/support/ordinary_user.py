"""A view of this machine in which ordinary users can run our Python and read our files.

The interpreter, or the whole checkout, may lie below a home that only root may enter. What is started with the words
of `reachable(folder)` before it sees a copy of the file system in which an open folder lies over that home, with
what is needed at its place in it. It needs root, and an empty folder to hold on to things meanwhile.
"""

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from support.gateway import REPOSITORY

NAME = "nobody"  # there is one everywhere, and it has no home

_SCRIPT = """
set -e
closed=$1 hold=$2 count=$3
shift 3
for at in $(seq "$count"); do
    eval "path=\\${$at}"
    mkdir -p "$hold/$at"
    mount --bind "$path" "$hold/$at"
done
mount -t tmpfs -o mode=755 tmpfs "$closed"
for at in $(seq "$count"); do
    mkdir -p "$1"
    mount --bind "$hold/$at" "$1"
    shift
done
exec "$@"
"""


def reachable(folder: Path) -> Sequence[str]:
    """Words to put before a command; none where everything is open anyway."""
    needed = [Path(sys.base_prefix).resolve(), REPOSITORY]
    closed = {home for path in needed if (home := _closed(path))}
    if not closed:
        return ()
    (home,) = closed  # two such places are nowhere yet
    below = [str(path) for path in needed if path.is_relative_to(home)]
    return ("unshare", "--mount", "sh", "-c", _SCRIPT, "sh", str(home), str(folder), str(len(below)), *below)


def _closed(path: Path) -> Path | None:
    """The topmost folder on the way to `path` that others may not enter."""
    ways = [*reversed(path.parents), path]
    return next((way for way in ways if not os.stat(way).st_mode & stat.S_IXOTH), None)
