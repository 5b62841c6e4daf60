"""scripts/compile on a package of two modules: compiled for real, and taken by who runs there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from compile.build import Compiler, Failed

import egress_gateway
from compile import rooms
from egress_gateway.compiled import CURRENT

ROOT = Path(__file__).resolve().parents[2]

_MAKE = """
import sys
from pathlib import Path
from compile.__main__ import main
sys.exit(main(Path({sources!r}), Path({place!r})))
"""
_USE = """
from pathlib import Path
from egress_gateway import compiled
compiled.use(Path({place!r}))
from egress_gateway.policy import one
print(compiled.said(), one.answer(), type(one.answer).__name__)
"""


@dataclass
class Project:
    folder: Path

    @property
    def sources(self) -> Path:
        return self.folder / "addons"

    @property
    def place(self) -> Path:
        return self.folder / "compiled"

    @property
    def one(self) -> Path:
        return self.sources / "egress_gateway" / "policy" / "one.py"

    def make(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self._run(_MAKE, env)

    def use(self) -> str:
        done = self._run(_USE, {})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def builds(self) -> set[str]:
        return {path.name for path in self.place.iterdir() if path.is_dir() and not path.is_symlink()}

    def _run(self, program: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        text = program.format(sources=str(self.sources), place=str(self.place))
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{self.sources}:{ROOT}"} | env
        command = [sys.executable, "-P", "-c", text]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    package = made.sources / "egress_gateway"
    for name in ("policy/two.py", *rooms.FILES):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    for room in ("", "policy", "hooks", "observe"):
        (package / room / "__init__.py").touch()
    shutil.copy(Path(egress_gateway.__file__).with_name("compiled.py"), package)
    made.one.write_text("from .two import TWO\n\ndef answer() -> int:\n    return TWO - 1\n")
    (package / "policy" / "two.py").write_text("TWO = 2\n")
    return made


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        Compiler.find()
    except Failed as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_it_is_taken_as_long_as_it_fits_the_sources(project: Project) -> None:
    done = project.make()
    assert done.returncode == 0, done.stderr
    assert project.use() == "compiled 1 builtin_function_or_method"
    first = project.builds()
    assert len(first) == 1

    again = project.make()
    assert (again.returncode, again.stderr) == (0, "")  # nothing to do, and nothing said

    project.one.write_text(project.one.read_text().replace("- 1", "+ 1"))
    assert project.use().startswith("interpreted: the sources have changed since they were compiled")
    assert project.use().endswith(" 3 function")

    # What does not compile leaves all as it was.
    right = project.one.read_text()
    project.one.write_text(right.replace("TWO + 1", "str(TWO)"))
    wrong = project.make()
    assert wrong.returncode == 1
    assert "compile: mypyc failed: egress_gateway/policy/one.py:4: error: Incompatible return value" in wrong.stderr
    assert wrong.stderr.count("\n") == 2
    assert project.builds() == first
    project.one.write_text(right)

    assert project.make().returncode == 0
    assert project.use() == "compiled 3 builtin_function_or_method"
    # The one before may be what a gateway is starting with just now.
    assert len(project.builds()) == 2
    assert first < project.builds()

    (project.place / CURRENT / "stamp.json").write_text("{}")
    assert project.use().startswith("interpreted: the compiled code is broken")
    assert project.make().returncode == 0
    assert project.use() == "compiled 3 builtin_function_or_method"
    assert len(project.builds()) <= 2


def test_without_a_c_compiler_a_line_says_what_to_install(project: Project) -> None:
    done = project.make(PATH="/nowhere")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "compile: needs a C compiler (Debian, Ubuntu: apt-get install gcc python3" in done.stderr
    assert "the gateway works without" in done.stderr
    assert project.builds() == set()
    assert project.use().startswith("interpreted: it has not been compiled")


def test_a_compiler_that_fails_is_told_in_a_line(project: Project, tmp_path: Path) -> None:
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'out of luck' >&2\necho more >&2\nexit 3\n")
    failing.chmod(0o755)
    done = project.make(CC=str(failing))
    assert done.returncode == 1
    assert f"compile: {failing} failed: out of luck; " in done.stderr
    assert "Traceback" not in done.stderr
    assert project.builds() == set()
