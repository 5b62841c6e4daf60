"""The next message head on a connection, in bounded time and memory."""

from __future__ import annotations

import asyncio

import pytest

from egress_gateway.relay.heads import read_head
from egress_gateway.relay.http1 import Malformed
from egress_gateway.relay.stream import Input, TooLarge

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def source(*pieces: bytes, eof: bool = True) -> Input:
    reader = asyncio.StreamReader()
    for piece in pieces:
        reader.feed_data(piece)
    if eof:
        reader.feed_eof()
    return Input(reader)


async def test_one_head_after_the_other_and_then_the_end() -> None:
    made = source(HEAD + HEAD, b"body")
    assert await read_head(made, 1000) == HEAD
    assert await read_head(made, 1000) == HEAD
    assert await made.read() == b"body"
    assert await read_head(made, 1000) is None


async def test_a_head_that_is_exactly_as_large_as_allowed() -> None:
    assert await read_head(source(HEAD), len(HEAD)) == HEAD
    with pytest.raises(TooLarge):
        await read_head(source(HEAD), len(HEAD) - 1)


async def test_a_head_without_an_end_is_too_large_before_it_ends() -> None:
    made = source(b"X: y\r\n" * 1000, eof=False)
    with pytest.raises(TooLarge):
        await read_head(made, 1000)


async def test_a_connection_that_ends_within_a_head() -> None:
    with pytest.raises(Malformed):
        await read_head(source(HEAD[:-1]), 1000)


async def test_a_bare_line_end_is_found_before_the_head_is_complete() -> None:
    with pytest.raises(Malformed):
        await read_head(source(b"GET / HTTP/1.1\nHost: a", eof=False), 1000)
