"""The next message head on a connection, in bounded time and memory."""

from __future__ import annotations

import asyncio

import pytest

from egress_gateway.relay.heads import read_head, take_head
from egress_gateway.relay.http1 import Malformed, parse_request
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


def test_a_head_that_is_here_is_taken_and_what_follows_stays() -> None:
    buffer = bytearray(HEAD + b"body")
    assert take_head(buffer, 1000) == HEAD
    assert buffer == b"body"
    assert take_head(bytearray(HEAD), len(HEAD)) == HEAD


def test_a_head_that_is_not_here_yet_leaves_all_as_it_is() -> None:
    for length in range(len(HEAD)):
        buffer = bytearray(HEAD[:length])
        assert take_head(buffer, 1000) is None
        assert buffer == HEAD[:length]


def test_a_head_that_is_here_may_still_be_too_large_or_never_end() -> None:
    with pytest.raises(TooLarge):
        take_head(bytearray(HEAD), len(HEAD) - 1)
    with pytest.raises(Malformed):
        take_head(bytearray(b"GET / HTTP/1.1\nHost: a\n\n"), 1000)
    with pytest.raises(Malformed):
        take_head(bytearray(b"GET / HTTP/1.1\nHost: a\r\n\r\n"), 10)


def test_a_bare_line_end_within_a_whole_head_is_told_as_such() -> None:
    for bare in (b"GET / HTTP/1.1\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"):
        raw = take_head(bytearray(bare), 1000)
        assert raw == bare
        with pytest.raises(Malformed, match="bare CR or LF"):
            parse_request(raw)
