"""scripts/compile on a package of two modules: compiled for real, and taken by who runs there."""

from __future__ import annotations

import shutil
import signal
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
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests run in the background
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

    def start(self, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command(_MAKE), env=self._env(env), stderr=subprocess.PIPE, text=True)

    def _run(self, program: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = self._command(program)
        return subprocess.run(command, env=self._env(env), capture_output=True, text=True, timeout=300, check=False)

    def _command(self, program: str) -> list[str]:
        return [sys.executable, "-P", "-c", program.format(sources=str(self.sources), place=str(self.place))]

    def _env(self, env: dict[str, str]) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{self.sources}:{ROOT}"} | env


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

    (project.place / "lock").unlink()
    again = project.make()
    assert (again.returncode, again.stderr) == (0, "")  # nothing to do, and nothing said
    assert not (project.place / "lock").exists(), "nothing is written, which may not be possible"

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


@pytest.mark.parametrize(
    ("asked", "said"), [("nosuch", "CC=nosuch: no such program; "), (" ", "CC= : no such program; ")]
)
def test_a_compiler_that_is_asked_for_and_not_there_is_no_other_one(project: Project, asked: str, said: str) -> None:
    done = project.make(CC=asked)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr


def test_a_compiler_may_be_asked_for_with_options(project: Project, tmp_path: Path) -> None:
    failing = tmp_path / "cc"
    failing.write_text('#!/bin/sh\necho "told $1 $2" >&2\nexit 3\n')
    failing.chmod(0o755)
    assert (
        f"{failing} -one '-two' failed: told -one -two".replace("'", "")
        in project.make(CC=f"{failing} -one '-two'").stderr
    )


def test_a_place_that_cannot_be_written_is_told_in_a_line(project: Project) -> None:
    project.place.write_text("")
    done = project.make()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"compile: cannot write {project.place}: File exists; " in done.stderr


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_one_that_is_interrupted_leaves_nothing(project: Project, tmp_path: Path, by: signal.Signals) -> None:
    slow, go_on = tmp_path / "cc", tmp_path / "go on"
    slow.write_text(f"#!/bin/sh\nuntil [ -e '{go_on}' ]; do sleep 0.02; done\n")
    slow.chmod(0o755)
    with project.start(CC=str(slow)) as running:
        assert running.stderr is not None
        while "machine code" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(by)
        go_on.touch()
        rest = running.stderr.read()
        assert running.wait(30) == 130
    assert "compile: interrupted; what was there before is left\n" in rest
    assert "Traceback" not in rest
    assert [path.name for path in project.place.iterdir()] == ["lock"]
