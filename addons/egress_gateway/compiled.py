"""Takes the rooms that every request passes through as machine code, where scripts/compile has made some of them.

The rules of this file:

- The compiled code is used where it was made from the very sources that lie here, byte for byte, and is whole. In
  every other case all modules are interpreted, from the same sources: it is slower, and otherwise the same.
- All or nothing: a compiled and an interpreted module never share a class. So it is decided before the first of these
  modules is imported, and all of them are in one file.
- Only standard library here: it runs before anything else.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Self

SOURCES = Path(__file__).resolve().parents[1]
"""Where the package lies."""
PLACE = Path(sys.prefix) / "compiled"
"""A folder for each build, and `CURRENT`, a link to the one to use."""
CURRENT = "current"
STAMP = "stamp.json"
LIBRARY = "egress_gateway__mypyc"
"""The name of the module that holds all others; mypyc wants it to end like this."""
SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")
OFF = "EGRESS_INTERPRETED"
"""The environment variable that turns it off."""


class Unusable(Exception):
    """The compiled code must not be used; the text says why, for people."""


@dataclass(frozen=True)
class Stamp:
    """What is known about a build."""

    modules: tuple[str, ...]
    sources: Mapping[str, str]
    """The digest of each source that the compiled code relies on, by its path below `SOURCES`; also of those that it
    only calls, since it knows their types."""
    library: str
    """The digest of the library."""
    suffix: str
    """Which interpreter it is for, as the names of extension modules say it."""
    made_by: str
    """Which compiler made it, and how; it matters to scripts/compile alone."""

    def write(self, folder: Path) -> None:
        (folder / STAMP).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises Unusable."""
        try:
            said = json.loads((folder / STAMP).read_bytes())
            if not (isinstance(said["modules"], list) and isinstance(said["sources"], dict)):
                raise ValueError("not a stamp")
            return cls(**said)
        except FileNotFoundError:
            raise Unusable("it has not been compiled (scripts/compile)") from None
        except (OSError, ValueError, TypeError, KeyError):
            raise Unusable("the compiled code is broken (scripts/compile)") from None

    def verify(self, folder: Path, sources: Path) -> None:
        """Raises Unusable where the library in `folder` is not whole, or does not fit `sources` and this Python."""
        if self.suffix != SUFFIX:
            raise Unusable("it was compiled for another Python (scripts/compile)")
        if any(digest(sources / path) != known for path, known in self.sources.items()):
            raise Unusable("the sources have changed since they were compiled (scripts/compile)")
        if digest(library(folder)) != self.library:
            raise Unusable("the compiled code is broken (scripts/compile)")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, modules: Sequence[str], path: Path) -> None:
        self._modules = frozenset(modules)
        self._path = str(path)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=ExtensionFileLoader(fullname, self._path)
        )


_used: str | None = None
"""What `use` has found, None before it."""


def use(place: Path = PLACE, sources: Path = SOURCES) -> None:
    """Imports of this process take the compiled code from now on, where it may be used. Once is for good.

    Raises RuntimeError where it comes too late.
    """
    global _used
    if _used is not None:
        return
    try:
        if os.environ.get(OFF):
            raise Unusable(f"{OFF} is set")
        try:
            folder = (place / CURRENT).resolve()  # once: it may be another one in a moment
        except (OSError, RuntimeError):  # links in a circle, before Python 3.13
            raise Unusable("the compiled code is broken (scripts/compile)") from None
        stamp = Stamp.read(folder)
        stamp.verify(folder, sources)
        _load(stamp.modules, library(folder))
    except Unusable as error:
        _used = f"interpreted: {error}"
    else:
        _used = "compiled"


def _load(modules: Sequence[str], path: Path) -> None:
    if late := [name for name in modules if name in sys.modules]:
        raise RuntimeError(f"{late[0]} was imported before its compiled code could be looked for")
    finder = _Finder((LIBRARY, *modules), path)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(LIBRARY)  # no module runs yet
    except ImportError as error:
        sys.meta_path.remove(finder)
        raise Unusable(f"the compiled code cannot be loaded: {error}") from None


def said() -> str:
    """`compiled`, or `interpreted` and why."""
    return _used or "interpreted"


def library(folder: Path) -> Path:
    return folder / (LIBRARY + SUFFIX)


def digest(path: Path) -> str:
    """Of the file's content; the empty string where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
