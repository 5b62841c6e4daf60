import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from egress_gateway.observe.line_writer import _AT_ONCE as AT_ONCE
from egress_gateway.observe.line_writer import LineWriter
from egress_gateway.observe.output import FileOutput
from egress_gateway.policy.events import Exchange
from support.waiting import eventually

Make = Callable[..., Exchange]


class Memory:
    """An output that holds what it was given, and can be made to wait."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.data = b""
        self.open = threading.Event()
        self.open.set()
        self.closed = False

    def write(self, data: bytes) -> int:
        self.open.wait(10)
        self.data += data
        return len(data)

    def reopen(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def path_line(exchange: Exchange) -> bytes:
    return exchange.path.encode() + b"\n"


def test_lines_are_written_in_order_and_nothing_is_lost(request_: Make) -> None:
    memory = Memory()
    writer = LineWriter(memory, path_line, name="test", queue_size=10_000)
    for i in range(5000):
        writer.put(request_(path=f"/{i}"))
    writer.close(10)
    assert memory.data == b"".join(b"/%d\n" % i for i in range(5000))
    assert writer.dropped == 0
    assert memory.closed


def test_a_line_is_written_soon_without_another_one_after_it(request_: Make) -> None:
    memory = Memory()
    writer = LineWriter(memory, path_line, name="test")

    def has_come(line: bytes) -> bool:
        return memory.data.endswith(line)

    for i in range(3):
        writer.put(request_(path=f"/{i}"))
        eventually(partial(has_come, b"/%d\n" % i), "the line")
        time.sleep(0.1)
    writer.close()


def test_a_full_queue_drops_and_counts_and_never_waits(request_: Make) -> None:
    memory = Memory()
    memory.open.clear()
    writer = LineWriter(memory, path_line, name="test", queue_size=100)
    exchange = request_()
    started = time.monotonic()
    for _ in range(10_000):
        writer.put(exchange)
    assert time.monotonic() - started < 8, "it takes ten seconds to write anything"
    memory.open.set()
    writer.close(10)
    assert memory.data.count(b"\n") + writer.dropped == 10_000
    assert memory.data.count(b"\n") <= 100 + AT_ONCE


def test_long_paths_fill_the_queue_sooner(request_: Make) -> None:
    memory = Memory()
    memory.open.clear()
    writer = LineWriter(memory, path_line, name="test", queue_size=10_000)
    exchange = request_(path="/" * 1024 * 1024)
    for _ in range(100):
        writer.put(exchange)
    # As many as have room are being written, and as many again have their room then.
    assert writer.dropped > 60
    memory.open.set()

    def is_taken() -> bool:
        before = writer.dropped
        writer.put(exchange)
        return writer.dropped == before

    eventually(is_taken, "room for another one, once lines were written")
    writer.close()


def test_a_fifo_without_a_reader_never_blocks_and_its_lines_are_counted(tmp_path: Path, request_: Make) -> None:
    os.mkfifo(tmp_path / "fifo")
    started = time.monotonic()
    writer = LineWriter(FileOutput(str(tmp_path / "fifo"), "test"), path_line, name="test")
    for _ in range(1000):
        writer.put(request_())
    writer.close(10)
    assert time.monotonic() - started < 8
    assert writer.dropped == 1000


def test_a_fifo_whose_reader_stopped_reading_never_blocks_and_close_keeps_its_time(
    tmp_path: Path, request_: Make
) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(FileOutput(str(tmp_path / "fifo"), "test"), path_line, name="test", queue_size=1000)
    exchange = request_(path="/" + "x" * 999)
    started = time.monotonic()
    for _ in range(5000):
        writer.put(exchange)
    assert time.monotonic() - started < 8
    started = time.monotonic()
    writer.close(0.5)
    assert time.monotonic() - started < 8
    os.set_blocking(reader, True)
    read = bytearray()
    while data := os.read(reader, 65536):
        read += data
    os.close(reader)
    assert read.count(b"\n") + writer.dropped == 5000
    assert writer.dropped > 3000


def test_a_line_that_cannot_be_made_is_dropped_said_once_and_stops_nothing(
    request_: Make, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()

    def picky(exchange: Exchange) -> bytes:
        if exchange.path == "/bad":
            raise ValueError("no")
        return path_line(exchange)

    writer = LineWriter(memory, picky, name="test")
    for path in ("/bad", "/good", "/bad"):
        writer.put(request_(path=path))
    writer.close(10)
    assert memory.data == b"/good\n"
    assert writer.dropped == 2
    assert len(caplog.records) == 1


def test_after_closing_lines_are_dropped(request_: Make) -> None:
    memory = Memory()
    writer = LineWriter(memory, path_line, name="test")
    writer.close()
    writer.put(request_())
    assert writer.dropped == 1
    assert memory.closed


def test_an_output_that_hangs_for_good_does_not_hold_up_closing(request_: Make) -> None:
    memory = Memory()
    memory.open.clear()
    writer = LineWriter(memory, path_line, name="test")
    for _ in range(200):
        writer.put(request_())
    started = time.monotonic()
    writer.close(0.2)
    assert time.monotonic() - started < 8
    assert 200 - AT_ONCE <= writer.dropped <= 200, "but for those that are being written"
    memory.open.set()
    eventually(lambda: memory.closed, "the end of the thread")
    assert memory.data.count(b"\n") + writer.dropped == 200, "nothing is counted twice"
