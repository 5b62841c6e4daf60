"""The log of a process in the background."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress_gateway.network.log_file import last_lines, open_log


def test_the_last_lines_of_a_log_are_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"{number}\n" for number in range(10)))
    assert last_lines(tmp_path / "log") == "5 | 6 | 7 | 8 | 9"
    assert last_lines(tmp_path / "none") == "it said nothing"


def test_a_log_begins_anew_and_others_cannot_write_it(tmp_path: Path) -> None:
    for words in (b"first, and longer", b"second"):
        with open_log(tmp_path / "log") as log:
            log.write(words)
    assert (tmp_path / "log").read_text() == "second"
    assert (tmp_path / "log").stat().st_mode & 0o027 == 0


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_log(tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()
