"""One direction between two sockets, step by step: what one call of `move` does, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import time
from collections.abc import Iterator

import pytest

from egress_gateway.relay import way
from egress_gateway.relay.pipes import Pipes
from egress_gateway.relay.way import Way
from support.socket_pair import arrive, pair, queued, reset
from support.waiting import eventually

BUFFER = memoryview(bytearray(1 << 16))


class Line:
    """`say` → source, moved by `way` to sink → `hear`."""

    def __init__(self, pipes: Pipes) -> None:
        self.say, self.source = pair()
        self.hear, self.sink = pair()
        self.pipes = pipes
        self.way = Way(self.source, self.sink, b"", pipes)

    def said(self, data: bytes) -> None:
        assert self.say.send(data) == len(data)
        eventually(lambda: queued(self.say) == 0, "the source has it")
        self.way.may_read = True

    def heard(self, most: int = 100) -> bytes:
        arrive(self.hear)
        return self.hear.recv(most)

    def move(self) -> bool:
        return self.way.move(BUFFER)

    def fill(self) -> None:
        """Moves until the sink takes no more."""
        while not self.way.waiting:
            with contextlib.suppress(BlockingIOError):
                self.say.send(bytes(1 << 20))
            self.way.may_read = True
            self.move()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(Pipes())
    yield made
    made.way.release()
    for sock in (made.say, made.source, made.hear, made.sink):
        sock.close()
    assert made.pipes.in_use == 0


def test_nothing_is_read_before_the_kernel_has_said_that_something_is_there(line: Line) -> None:
    line.say.send(b"x")
    assert not line.move()
    assert line.way.moved == 0


def test_a_small_piece_is_read_once_and_the_source_not_asked_again(line: Line) -> None:
    line.said(b"hello")
    assert not line.move()
    assert line.heard() == b"hello"
    assert not line.way.may_read


def test_of_a_large_piece_that_came_whole_the_source_is_not_asked_for_more(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would be an exception for each."""
    calls: list[int] = []
    splice = os.splice

    def counting(*arguments: int, **flags: int) -> int:
        calls.append(0)
        calls[-1] = splice(*arguments, **flags)
        return calls[-1]

    monkeypatch.setattr(os, "splice", counting)
    line.said(bytes(100_000))
    assert not line.move()
    assert calls == [100_000 - way.COPIED_BYTES] * 2, "into the pipe and out of it"
    assert not line.way.may_read


def test_a_small_piece_before_the_end_is_not_the_last_thing_that_is_read(line: Line) -> None:
    """Of both together the kernel tells only once."""
    line.said(b"bye")
    line.say.shutdown(socket.SHUT_WR)
    ending = select.poll()
    ending.register(line.source, select.POLLRDHUP)
    assert ending.poll(15_000)
    line.way.unsure = True
    assert not line.move()
    assert line.way.done
    assert (line.heard(), line.heard()) == (b"bye", b"")


def test_a_turn_is_bounded_and_says_that_there_is_more(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "TURN_BYTES", 10_000)
    monkeypatch.setattr(way, "PIPED_BYTES", 20_000)
    line.said(bytes(100_000))
    turns = 1
    while line.move():
        assert line.way.moved <= turns * (10_000 + way.COPIED_BYTES)
        assert line.pipes.in_use == 0, "no pipe is kept between turns"
        turns += 1
    assert line.way.moved == 100_000
    assert turns > 1


def test_of_what_the_sink_does_not_take_nothing_is_lost_and_nothing_more_is_read(line: Line) -> None:
    data = random.Random(1).randbytes(1 << 16)
    said, heard = bytearray(), bytearray()

    def say() -> None:
        with contextlib.suppress(BlockingIOError):
            said.extend(data[: line.say.send(data)])
        line.way.may_read = True
        line.move()

    while not line.way.waiting:
        say()
    assert not line.way.may_write
    say()
    arrive(line.source)
    assert len(line.source.recv(1 << 16, socket.MSG_PEEK)) > 0, "left in the kernel"
    while len(heard) < len(said):
        heard += line.heard(1 << 20)
        line.way.may_read = line.way.may_write = True
        line.move()
    assert heard == said
    assert line.way.moved == len(said)


def test_a_sink_that_took_less_than_it_was_given_is_not_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """That would be an exception for each time that it is full. One that is filled to the last byte refuses rightly."""
    refused: set[int] = set()
    splice = os.splice

    def counting(source: int, sink: int, *arguments: int, **flags: int) -> int:
        try:
            return splice(source, sink, *arguments, **flags)
        except BlockingIOError:
            refused.add(sink)
            raise

    monkeypatch.setattr(os, "splice", counting)
    lines_refused = 0
    for _ in range(5):
        line = Line(Pipes())
        line.fill()
        lines_refused += line.sink.fileno() in refused
        refused.clear()
        line.way.release()
        for sock in (line.say, line.source, line.hear, line.sink):
            sock.close()
    assert lines_refused < 5


def test_a_pipe_with_bytes_in_it_is_not_given_to_anybody_else(line: Line) -> None:
    line.fill()
    kept = line.pipes.in_use
    line.way.release()
    assert line.pipes.in_use == 0
    if kept:
        another = line.pipes.take()
        assert another is not None
        with pytest.raises(BlockingIOError):
            os.read(another.read_end, 1)
        line.pipes.give(another)


def test_an_error_of_the_source_is_raised(line: Line) -> None:
    line.said(b"x")
    reset(line.say)
    with pytest.raises(ConnectionResetError):
        move_often(line)


def test_an_error_of_the_sink_is_raised(line: Line) -> None:
    reset(line.hear)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        move_often(line)


def move_often(line: Line) -> None:
    for _ in range(100):
        line.way.may_read = True
        with contextlib.suppress(OSError):
            line.say.send(b"x")
        line.move()
        time.sleep(0.001)
