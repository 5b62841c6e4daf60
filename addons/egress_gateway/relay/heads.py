"""Waits for the next message head on a connection, in bounded time and memory."""

from __future__ import annotations

import asyncio

from egress_gateway.policy.reason import Reason

from .client import Client
from .http1 import LastHead, Malformed, RequestHead, TooManyFields, head_end, parse_request
from .refuse import refuse_http
from .stream import Input, TooLarge
from .target import NotUnderstood


def take_head(buffer: bytearray, limit: int) -> bytes | None:
    """The header section at the beginning of `buffer`, consumed; None where it is not complete yet.

    Whoever parses it finds what is wrong within its lines. Raises `TooLarge`, or `Malformed` where it never ends.
    """
    end = buffer.find(b"\r\n\r\n") + 4
    if end < 4 or end > limit:
        complete = head_end(buffer, 0)
        if complete is None:
            return None
        raise TooLarge
    head = bytes(buffer[:end])
    if end == len(buffer):
        buffer.clear()
    else:
        del buffer[:end]
    return head


async def read_head(source: Input, limit: int) -> bytes | None:
    """The next complete header section, consumed; None where the stream ended before it began.

    Raises `TooLarge`, `Malformed` (a stream that ends within a head included), or OSError.
    """
    searched = 0
    while True:
        end = head_end(source.buffer, searched)
        if end is not None:
            if end > limit:
                raise TooLarge
            head = bytes(source.buffer[:end])
            del source.buffer[:end]
            return head
        searched = len(source.buffer)
        if searched > limit:
            raise TooLarge
        if not await source.fill():
            if source.buffer:
                raise Malformed("the connection ended within a header section")
            return None


async def read_request(client: Client) -> RequestHead | NotUnderstood | None:
    """The next request head of `client`; None at the end of the connection.

    The first byte may take the idle timeout, the rest of the head the header timeout.
    """
    limits, source = client.gate.settings.limits, client.input
    last = client.last_head
    if last is None:
        last = client.last_head = LastHead()
    try:
        if source.buffer:
            # Requests that are here already would otherwise be served in one go, before anybody else's turn.
            await asyncio.sleep(0)
        else:
            with client.deadline.within(limits.idle_timeout):
                if not await source.fill():
                    return None
    except (TimeoutError, OSError):
        return None
    try:
        raw = take_head(source.buffer, limits.header_bytes)
        if raw is None:
            with client.deadline.within(limits.header_timeout):
                raw = await read_head(source, limits.header_bytes)
        return None if raw is None else parse_request(raw, limits.header_fields, last)
    except TimeoutError:
        return NotUnderstood(Reason.CLIENT_TIMEOUT, f"no complete header in {limits.header_timeout:g} s")
    except TooLarge:
        return NotUnderstood(Reason.HEADERS_TOO_LARGE, f"a header of more than {limits.header_bytes} bytes")
    except TooManyFields as too_many:
        return NotUnderstood(Reason.HEADERS_TOO_LARGE, str(too_many))
    except Malformed as error:
        return NotUnderstood(Reason.MALFORMED_REQUEST, str(error))
    except OSError:
        return None


async def refuse_unread(client: Client, problem: NotUnderstood) -> None:
    """Answers a request whose head could not be read; the connection must be closed then."""
    exchange = client.begin()
    exchange.protocol = "HTTP/1.1"
    exchange.detail = problem.detail
    exchange.verdict = client.gate.refused(problem.reason, "http")
    try:
        await refuse_http(client, exchange)
    except OSError:
        exchange.failure = Reason.CLIENT_CLOSED
    finally:
        client.gate.finish(exchange)
