"""Where mitmproxy under `scripts/gateway` keeps its certificates, and what a user hears who may not write there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.gateway import REPOSITORY

# Where the user's home is, the arguments, and the folder that cannot be used.
CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a home is there": ("home", (), ""),
    "it need not be there yet": ("not/yet", (), ""),
    "there is no home, and no place for one": ("file", (), "{tmp}/file/.mitmproxy"),
    "another folder is named": ("file", ("--set", "confdir={tmp}/there/below"), ""),
    "another folder below the one we are in": ("file", ("--set=confdir=there",), ""),
    "another folder below home, and a file is in the way": (
        "home",
        ("--set", "confdir=~/../file/below"),
        "{tmp}/home/../file/below",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_certificates_have_a_place_or_it_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    home, arguments, cannot = CASES[case]
    (tmp_path / "home").mkdir()
    (tmp_path / "file").touch()
    done = subprocess.run(
        [REPOSITORY / "scripts" / "gateway", "--version", *(each.format(tmp=tmp_path) for each in arguments)],
        env={**os.environ, "HOME": str(tmp_path / home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if not cannot:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert f"cannot keep mitmproxy's certificates in {cannot.format(tmp=tmp_path)} (name another folder: " in line
