"""The demo, run as a user runs it."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

DEMO = str(Path(__file__).resolve().parents[2] / "scripts" / "demo")


def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEMO, *arguments],
        env=os.environ | environment | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


def assert_told_in_order(done: subprocess.CompletedProcess[str], lines: Iterable[str]) -> None:
    """The story was played to its end, and these lines stand in it one after the other."""
    assert done.returncode == 0, done.stdout + done.stderr
    position = 0
    for line in lines:
        found = done.stdout.find(line, position)
        assert found >= 0, f"not there, or too early: {line}\n{done.stdout}"
        position = found
    assert "✗" not in done.stdout


def running_in(folder: Path) -> list[str]:
    """Processes with `folder` in their environment, as the place for temporary files say: the demo and its own."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
            if b"=%s\0" % os.fsencode(folder) in environment:
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found
