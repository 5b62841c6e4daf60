"""Copies one message body from a connection to another, in bounded memory: what cannot be written is not read."""

from __future__ import annotations

import asyncio
from typing import Protocol

from . import forward
from .http1 import Body, UntilCloseBody
from .stream import Input, Writer


class SourceEnded(Exception):
    """The connection that the body came from ended within it; the text says how."""


class Clock(Protocol):
    """Keeps the time of a transfer."""

    def touch(self) -> None:
        """Something has moved."""


async def copy_body(body: Body, source: Input, sink: Writer, *, chunked: bool, idle: Clock) -> int:
    """Copies `body`, framed anew as chunks where asked for; returns its length in bytes.

    Raises `Malformed` where the framing is broken, `SourceEnded`, or OSError where the sink is gone.
    """
    total = 0
    while True:
        data = body.take(source.buffer) if source.buffer else b""
        if data:
            total += len(data)
            sink.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            await sink.drain()
            idle.touch()
        if body.done:
            break
        if source.buffer and data:
            # More is at hand, and reading it would not wait: let others have their turn.
            await asyncio.sleep(0)
        elif not await _more(source):
            if isinstance(body, UntilCloseBody):
                break
            raise SourceEnded("closed in the middle of a body")
    if chunked:
        trailers = forward.fields_bytes(forward.trailer_fields(body.trailers))
        sink.write(b"0\r\n%s\r\n" % trailers)
    return total


async def _more(source: Input) -> bool:
    try:
        return await source.fill()
    except OSError as error:
        raise SourceEnded(f"connection lost: {error}") from None
