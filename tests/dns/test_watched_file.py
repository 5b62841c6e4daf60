"""A file is read again when it changed, and not more often. No clock: time is an argument."""

import os
from pathlib import Path

import pytest

from egress_gateway.dns.watched_file import MAX_SIZE, WatchedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


@pytest.fixture
def file(path: Path) -> WatchedFile[str]:
    return WatchedFile(path, str.upper, recheck=1.0)


def test_a_change_is_noticed_at_the_next_look_and_not_before(path: Path, file: WatchedFile[str]) -> None:
    assert file.get(10.0) == "ONE"
    path.write_text("three")
    assert file.get(10.9) == "ONE"
    assert file.get(11.0) == "THREE"


def test_a_change_of_the_same_size_is_noticed_by_its_time(path: Path, file: WatchedFile[str]) -> None:
    file.get(10.0)
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert file.get(12.0) == "TWO"


def test_a_file_moved_into_its_place_is_noticed(path: Path, file: WatchedFile[str]) -> None:
    file.get(10.0)
    before = path.stat()
    other = path.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert file.get(12.0) == "TWO"


def test_a_file_that_did_not_change_is_not_parsed_again(path: Path) -> None:
    parsed: list[str] = []

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    file = WatchedFile(path, parse, recheck=1.0)
    for now in range(10):
        file.get(float(now))
    assert parsed == ["", "one"]


def test_a_file_that_went_away_keeps_what_it_said_until_it_is_back(path: Path, file: WatchedFile[str]) -> None:
    file.get(10.0)
    path.unlink()
    assert file.get(12.0) == "ONE"
    path.write_text("three")  # of another size, since the number of the file may be the old one, and its time as well
    assert file.get(14.0) == "THREE"


def test_a_file_that_never_was_there_is_as_if_empty(tmp_path: Path) -> None:
    assert WatchedFile(tmp_path / "none", lambda text: f"<{text}>").get(0.0) == "<>"


def test_what_is_the_same_again_is_the_same_object(path: Path) -> None:
    file = WatchedFile(path, lambda text: [text], recheck=1.0)
    first = file.get(10.0)
    os.utime(path, ns=(1, 1))
    assert file.get(12.0) is first


def test_a_huge_file_is_cut_and_bytes_that_are_no_text_do_no_harm(path: Path, file: WatchedFile[str]) -> None:
    path.write_bytes(b"\xff" + b"a" * MAX_SIZE)
    assert len(file.get(10.0)) == MAX_SIZE
