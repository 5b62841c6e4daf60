"""`ctl` runs the real program as a process of its own, in a folder with nothing but an empty `rules` directory."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from support import warm

ADDONS = Path(__file__).parents[2] / "addons"
COMMAND = (sys.executable, "-m", "egress_gateway.cli")


@dataclass(frozen=True)
class Answer:
    """What a run wrote, and how it ended."""

    status: int
    out: str
    err: str


class Egressctl:
    """`ctl("get", "egressrules")` runs `egressctl get egressrules`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rules = folder / "rules"
        self.rules.mkdir()

    def __call__(self, *arguments: str, stdin: str | bytes = "", **environment: str) -> Answer:
        done = warm.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=dedent(stdin).encode() if isinstance(stdin, str) else stdin,
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def at_once(self, *commands: tuple[str, ...], stdin: str = "") -> list[Answer]:
        """The answers of several runs that go on at the same time."""
        runs = [
            subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for arguments in commands
        ]
        # Standard input comes to all of them before any is waited for.
        for run in runs:
            assert run.stdin is not None
            run.stdin.write(stdin)
            run.stdin.flush()
        ends = [run.communicate(timeout=60) for run in runs]
        return [Answer(run.returncode, out, err) for run, (out, err) in zip(runs, ends, strict=True)]

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        """The environment of a run: that of the tests, without what would change the program's answers."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("EGRESS", "NO_COLOR"))}
        return kept | {"PYTHONPATH": str(ADDONS), "PYTHONIOENCODING": "utf-8"} | more

    def write(self, name: str, text: str) -> Path:
        """Puts a file in the folder (`rules/x.yaml` is one in force)."""
        path = self.folder / name
        path.write_text(dedent(text).lstrip("\n"))
        return path

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the rules directory, to tell whether anything changed."""
        return {
            str(path.relative_to(self.rules)): path.read_bytes()
            for path in sorted(self.rules.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def ctl(tmp_path: Path) -> Egressctl:
    return Egressctl(tmp_path)
