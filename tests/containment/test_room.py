"""The room stands alone: the standard library of an old Python, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / "addons" / "egress_gateway" / "containment"
FILES = sorted(ROOM.rglob("*.py"))

_PRINTS_MODULES = """
import sys
sys.path.insert(0, sys.argv[1])
import egress_gateway.containment.main
print(*sys.modules, sep="\\n")
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOM)))
def test_python_3_9_can_read_it(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))


def test_nothing_but_the_standard_library_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _PRINTS_MODULES, str(ROOM.parents[1])], capture_output=True, text=True, check=True
    )
    imported = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert all(name.startswith("egress_gateway") or name == "__main__" for name in imported), imported
    rooms = {name.split(".")[1] for name in imported if "." in name}
    assert rooms == {"containment"}


JOINS = {"__init__.py", "__main__.py", "outcome.py", "targets.py", "heard.py", "reading.py"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOM)))
def test_every_file_that_does_something_has_its_test(file: Path) -> None:
    """The probes join the rest, and `test_run.py` has all of them at work."""
    if file.name not in JOINS and file.parent != ROOM / "probes":
        relative = file.relative_to(ROOM)
        assert (Path(__file__).parent / relative.parent / f"test_{file.name}").exists()
