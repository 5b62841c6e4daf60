"""The demo, run as a user runs it."""

import os
import subprocess
from pathlib import Path

DEMO = str(Path(__file__).resolve().parents[2] / "scripts" / "demo")


def run(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEMO, *arguments],
        env=os.environ | environment | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


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
