"""Reading from one side of a connection, with push-back."""

from __future__ import annotations

import asyncio

import pytest

from egress_gateway.relay.stream import CHUNK, Input


def reader(*pieces: bytes, eof: bool = True) -> asyncio.StreamReader:
    made = asyncio.StreamReader()
    for piece in pieces:
        made.feed_data(piece)
    if eof:
        made.feed_eof()
    return made


async def test_what_was_read_and_not_consumed_is_read_again() -> None:
    source = Input(reader(b"hello world"))
    assert await source.fill()
    assert bytes(source.buffer) == b"hello world"
    assert await source.read(5) == b"hello"
    assert await source.read() == b" world"
    assert await source.read() == b""
    assert await source.read() == b""


async def test_what_was_read_before_comes_first() -> None:
    source = Input(reader(b"world"), b"hello ")
    assert await source.read() == b"hello "
    assert await source.read() == b"world"
    assert await source.read() == b""


async def test_the_end_is_seen_once_and_stays() -> None:
    source = Input(reader())
    assert not await source.fill()
    assert source.eof
    assert not await source.fill()
    assert await source.read() == b""


async def test_no_read_is_larger_than_a_chunk() -> None:
    source = Input(reader(bytes(3 * CHUNK)))
    assert len(await source.read(10 * CHUNK)) == CHUNK
    assert await source.fill()
    assert len(source.buffer) == CHUNK


async def test_an_error_of_the_reader_is_passed_on() -> None:
    broken = reader(eof=False)
    broken.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await Input(broken).fill()
