import contextlib
import io
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from egress_gateway.observe.output import DescriptorOutput, FileOutput, StreamOutput


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is already full; its reading and its writing end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(65536)):
            pass
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(writer)
    os.close(reader)


def test_lines_are_appended_to_what_a_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    output = FileOutput(str(path), "access log")
    assert output.write(b"one\n") == 4
    output.close()
    assert path.read_bytes() == b"before\none\n"


def test_a_file_is_not_for_everybody_to_read(tmp_path: Path) -> None:
    FileOutput(str(tmp_path / "log"), "access log").close()
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_a_path_that_cannot_be_opened_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^\[Errno 2\] cannot open access log .*/none/log: no such file .*; it must"):
        FileOutput(str(tmp_path / "none" / "log"), "access log")


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egress_gateway.observe.output._LOOK_EVERY", 0.0)
    path = tmp_path / "log"
    output = FileOutput(str(path), "access log")
    output.write(b"one\n")
    path.rename(tmp_path / "log.1")
    output.write(b"two\n")
    path.unlink()
    output.write(b"three\n")
    output.close()
    assert (tmp_path / "log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


def test_a_file_that_another_one_took_the_place_of_is_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = FileOutput(str(path), "access log")
    output.write(b"one\n")
    path.rename(tmp_path / "log.1")
    path.touch()
    output.reopen()
    output.write(b"two\n")
    output.close()
    assert path.read_bytes() == b"two\n"


def test_reopen_opens_the_path_before_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egress_gateway.observe.output._LOOK_EVERY", 1e9)  # it does not see by itself
    path = tmp_path / "log"
    output = FileOutput(str(path), "access log")
    path.rename(tmp_path / "log.1")
    output.write(b"one\n")
    output.reopen()
    output.write(b"two\n")
    output.close()
    assert (tmp_path / "log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_if_the_path_cannot_be_opened_anew_the_old_file_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = FileOutput(str(folder / "log"), "access log")
    folder.rename(tmp_path / "moved")
    output.reopen()
    assert output.write(b"one\n") == 4
    output.close()
    assert (tmp_path / "moved" / "log").read_bytes() == b"one\n"
    assert "cannot write to access log" in caplog.text


def test_a_fifo_that_nobody_reads_takes_nothing_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    started = time.monotonic()
    output = FileOutput(str(tmp_path / "fifo"), "access log")
    assert output.write(b"one\n") == 0
    assert time.monotonic() - started < 8


def test_a_fifo_is_written_to_once_somebody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    output = FileOutput(str(tmp_path / "fifo"), "access log")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    output.reopen()
    assert output.write(b"one\n") == 4
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)
    assert output.write(b"two\n") == 0
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    output.reopen()
    assert output.write(b"three\n") == 6
    os.close(reader)
    output.close()


def test_a_full_pipe_is_waited_for_until_the_deadline(pipe: tuple[int, int]) -> None:
    output = DescriptorOutput(pipe[1], "standard output")
    started = time.monotonic()
    output.deadline = started + 0.3
    assert output.write(b"one\n") == 0
    assert 0.25 < time.monotonic() - started < 8
    took = []
    for _ in range(5):
        started = time.monotonic()
        assert output.write(b"two\n") == 0  # and after the deadline, not at all
        took.append(time.monotonic() - started)
    assert min(took) < 0.1


def test_a_write_that_is_larger_than_the_room_left_ends_at_the_deadline_too() -> None:
    reader, writer = os.pipe()
    output = DescriptorOutput(writer, "standard output")
    output.deadline = time.monotonic() + 0.3
    written: list[int] = []
    thread = threading.Thread(target=lambda: written.append(output.write(bytes(1_000_000))), daemon=True)
    thread.start()
    thread.join(15)
    in_time = list(written)
    os.close(reader)  # frees the thread if it waits for good
    thread.join(15)
    os.close(writer)
    assert in_time == [65536]


def test_room_that_another_writer_took_first_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    output = DescriptorOutput(writer, "standard output")
    really = os.write
    taken = [BlockingIOError(), BlockingIOError()]

    def write(descriptor: int, data: bytes) -> int:
        if taken:
            raise taken.pop()
        return really(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    assert output.write(b"one\n") == 4
    os.close(reader)
    os.close(writer)


def test_a_slow_reader_gets_everything(pipe: tuple[int, int]) -> None:
    output = DescriptorOutput(pipe[1], "standard output")
    data = b"".join(b"%d\n" % i for i in range(50_000))
    read = bytearray()

    def slowly() -> None:
        while not read.endswith(b"49999\n"):
            time.sleep(0.0005)
            read.extend(os.read(pipe[0], 65536))

    thread = threading.Thread(target=slowly)
    thread.start()
    assert output.write(data) == len(data)
    thread.join(15)
    assert bytes(read).lstrip(b"\0") == data


def test_a_descriptor_that_does_not_wait_is_waited_for_all_the_same() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        output = DescriptorOutput(near.fileno(), "standard output")
        output.deadline = time.monotonic() + 0.3
        assert 0 < output.write(bytes(10_000_000)) < 10_000_000


def test_a_line_that_was_written_in_part_is_not_continued_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, played by a limit on the size of files."""
    caplog.set_level(logging.ERROR)
    path = tmp_path / "log"
    output = FileOutput(str(path), "access log")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))
        assert output.write(b"one\ntwo\n") == 6
        assert output.write(b"lost\n") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert output.write(b"three\n") == 6
    output.close()
    assert path.read_bytes() == b"one\ntw\nthree\n"
    assert len(caplog.records) == 1, "the failure is said once"


def test_after_it_worked_again_the_next_failure_is_said_anew(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    output = DescriptorOutput(writer, "standard output")
    os.close(reader)
    output.write(b"lost\n")
    output.write(b"lost\n")
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write to standard output: broken pipe; lines are dropped until it works again"
    ]
    os.close(writer)


def test_a_stream_without_a_descriptor_gets_text() -> None:
    stream = io.StringIO()
    assert StreamOutput(stream).write("→\n".encode()) == 4
    assert stream.getvalue() == "→\n"
    stream.close()
    assert StreamOutput(stream).write(b"x\n") == 0
