"""Compiled code is taken where it fits, whole, or not at all; and it is said which."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egress_gateway import compiled
from egress_gateway.compiled import CURRENT, STAMP, SUFFIX, Stamp, digest, library, said, use
from support.compiled import require_compiled

MODULE = "egress_gateway.policy.one"
SOURCE = Path("egress_gateway/policy/one.py")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process never decided, and forgets what it decides in a test."""
    monkeypatch.setattr(compiled, "_used", None)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delenv("EGRESS_INTERPRETED", raising=False)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    path = tmp_path / "addons" / SOURCE
    path.parent.mkdir(parents=True)
    path.write_text("ONE = 1\n")
    return tmp_path / "addons"


@pytest.fixture
def place(tmp_path: Path, sources: Path) -> Path:
    """A build that fits the sources. Its library is none, which is seen by loading it, and not before."""
    place = tmp_path / "compiled"
    (place / CURRENT).mkdir(parents=True)
    library(place / CURRENT).write_bytes(b"no library")
    known = {SOURCE.as_posix(): digest(sources / SOURCE)}
    Stamp((MODULE,), known, digest(library(place / CURRENT)), SUFFIX, "").write(place / CURRENT)
    return place


def restamp(place: Path, **changes: Any) -> None:
    replace(Stamp.read(place / CURRENT), **changes).write(place / CURRENT)


def loaded(place: Path, sources: Path) -> str:
    finders = [*sys.meta_path]
    use(place, sources)
    assert sys.meta_path == finders
    return said()


def test_what_was_never_compiled_is_interpreted(tmp_path: Path, sources: Path) -> None:
    assert loaded(tmp_path / "nowhere", sources) == "interpreted: it has not been compiled (scripts/compile)"


def test_a_source_that_has_changed(place: Path, sources: Path) -> None:
    (sources / SOURCE).write_text("ONE = 2\n")
    assert loaded(place, sources) == "interpreted: the sources have changed since they were compiled (scripts/compile)"


def test_a_source_that_is_gone(place: Path, sources: Path) -> None:
    (sources / SOURCE).unlink()
    assert loaded(place, sources).startswith("interpreted: the sources have changed")


def test_another_python(place: Path, sources: Path) -> None:
    restamp(place, suffix=".cpython-27.so")
    assert loaded(place, sources) == "interpreted: it was compiled for another Python (scripts/compile)"


def test_a_library_that_is_not_the_one_that_was_made(place: Path, sources: Path) -> None:
    library(place / CURRENT).write_bytes(b"another")
    assert loaded(place, sources) == "interpreted: the compiled code is broken (scripts/compile)"


def test_a_library_that_is_gone(place: Path, sources: Path) -> None:
    library(place / CURRENT).unlink()
    assert loaded(place, sources) == "interpreted: the compiled code is broken (scripts/compile)"


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"modules": []}'])
def test_a_stamp_that_cannot_be_read(place: Path, sources: Path, text: str) -> None:
    (place / CURRENT / STAMP).write_text(text)
    assert loaded(place, sources) == "interpreted: the compiled code is broken (scripts/compile)"


def test_a_library_that_does_not_load(place: Path, sources: Path) -> None:
    assert loaded(place, sources).startswith("interpreted: the compiled code cannot be loaded: ")


def test_it_is_turned_off(place: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGRESS_INTERPRETED", "1")
    assert loaded(place, sources) == "interpreted: EGRESS_INTERPRETED is set"


def test_it_is_decided_once(place: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGRESS_INTERPRETED", "1")
    use(place, sources)
    monkeypatch.delenv("EGRESS_INTERPRETED")
    assert loaded(tmp_path / "nowhere", sources) == "interpreted: EGRESS_INTERPRETED is set"


def test_it_never_comes_too_late(place: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, sys)
    with pytest.raises(RuntimeError, match=MODULE):
        use(place, sources)


_ALL = """
import importlib, pathlib, pkgutil, sys
from egress_gateway import compiled
compiled.use()
assert compiled.said() == "compiled", compiled.said()
import egress_gateway
for each in pkgutil.walk_packages(egress_gateway.__path__, "egress_gateway."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
from egress_gateway.compiled import CURRENT, PLACE, Stamp
for name in Stamp.read(PLACE / CURRENT).modules:
    assert PLACE.resolve() in pathlib.Path(sys.modules[name].__spec__.origin).parents, name
"""


def test_the_whole_package_can_be_imported_beside_what_is_compiled() -> None:
    """Above all: nothing interpreted derives from a class that is compiled."""
    require_compiled()
    done = subprocess.run([sys.executable, "-P", "-c", _ALL], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_test_runs_compiled_by_itself() -> None:
    """Tests of a room look inside, which compiled code does not allow."""
    assert not any(compiled.LIBRARY in name for name in sys.modules)
    assert os.environ.get("EGRESS_INTERPRETED") is None
