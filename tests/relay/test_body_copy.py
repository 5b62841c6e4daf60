"""One body from a connection to another: whole or an error, and what cannot be written is not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.relay.body_copy import SourceEnded, copy_body
from egress_gateway.relay.deadline import Deadline
from egress_gateway.relay.http1 import Body, ChunkedBody, LengthBody, Malformed, UntilCloseBody
from egress_gateway.relay.stream import Input


class Pieces:
    """A reader that gives one piece a read."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.left = list(pieces)
        self.error = error

    async def read(self, n: int = -1) -> bytes:
        if self.left:
            return self.left.pop(0)
        if self.error:
            raise self.error
        return b""


class Sink:
    def __init__(self, *, stuck: bool = False, gone: bool = False) -> None:
        self.written = b""
        self.stuck, self.gone = stuck, gone

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        if self.gone:
            raise BrokenPipeError
        if self.stuck:
            await asyncio.Event().wait()

    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...
    def is_closing(self) -> bool:
        return False


async def copied(body: Body, *pieces: bytes, chunked: bool = False, before: bytes = b"") -> tuple[bytes, int, bytes]:
    """What was written, its length, and what was left over."""
    source, sink = Input(Pieces(*pieces), before), Sink()
    async with asyncio.timeout(5):
        total = await copy_body(body, source, sink, chunked=chunked, idle=Deadline())
    return sink.written, total, bytes(source.buffer)


async def test_by_length_no_byte_more() -> None:
    assert await copied(LengthBody(5), b"lo, next", before=b"hel") == (b"hello", 5, b", next")
    assert await copied(LengthBody(0), b"next") == (b"", 0, b"")


async def test_until_the_end() -> None:
    assert await copied(UntilCloseBody(), b"a", b"b") == (b"ab", 2, b"")


async def test_chunks_are_made_anew_or_taken_away() -> None:
    wire = b"5;x\r\nhello\r\n0\r\nA: 1\r\nHost: x\r\n\r\nnext"
    assert await copied(ChunkedBody(), wire, chunked=True) == (b"5\r\nhello\r\n0\r\nA: 1\r\n\r\n", 5, b"next")
    assert await copied(ChunkedBody(), wire) == (b"hello", 5, b"next")


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.integers(1, 7))
async def test_however_chunks_arrive_the_content_is_the_same(chunks: list[bytes], size: int) -> None:
    wire = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\nnext"
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    written, total, _ = await copied(ChunkedBody(), *pieces)
    assert (written, total) == (b"".join(chunks), len(b"".join(chunks)))


@pytest.mark.parametrize("make", [lambda: LengthBody(9), ChunkedBody], ids=["by length", "chunked"])
@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")], ids=["ends", "is reset"])
async def test_a_source_that_ends_within_a_body(make: Callable[[], Body], error: Exception | None) -> None:
    source = Input(Pieces(b"9\r\nabc", error=error))
    async with asyncio.timeout(5):
        with pytest.raises(SourceEnded):
            await copy_body(make(), source, Sink(), chunked=False, idle=Deadline())


async def test_a_body_until_the_end_that_is_reset_is_not_whole() -> None:
    source = Input(Pieces(b"abc", error=ConnectionResetError("reset")))
    async with asyncio.timeout(5):
        with pytest.raises(SourceEnded):
            await copy_body(UntilCloseBody(), source, Sink(), chunked=False, idle=Deadline())


async def test_bad_framing_is_the_sources_fault_and_a_gone_sink_is_not() -> None:
    async with asyncio.timeout(5):
        idle = Deadline()
        with pytest.raises(Malformed):
            await copy_body(ChunkedBody(), Input(Pieces(b"x\r\n")), Sink(), chunked=True, idle=idle)
        with pytest.raises(BrokenPipeError):
            await copy_body(LengthBody(5), Input(Pieces(b"hello")), Sink(gone=True), chunked=False, idle=idle)


async def test_what_cannot_be_written_is_not_read() -> None:
    pieces = Pieces(*[b"x"] * 10)
    async with asyncio.timeout(5):
        copying = asyncio.create_task(
            copy_body(UntilCloseBody(), Input(pieces), Sink(stuck=True), chunked=False, idle=Deadline())
        )
        await asyncio.sleep(0.01)
        assert len(pieces.left) == 9
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def test_whoever_keeps_the_time_is_told_of_each_piece_that_moves() -> None:
    class Clock:
        touched = 0

        def touch(self) -> None:
            self.touched += 1

    clock = Clock()
    await copy_body(UntilCloseBody(), Input(Pieces(b"a", b"b", b"c")), Sink(), chunked=False, idle=clock)
    assert clock.touched == 3
