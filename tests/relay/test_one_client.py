"""What one client can cost the others: bounded, on one relay, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

from egress_gateway.dns.answer import Answer
from egress_gateway.gate.settings import Limits
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client import finish, finish_soon
from support.relay_server import RelayServer, relay_server, rule
from support.waiting import until


@asynccontextmanager
async def origin(answer: bytes) -> AsyncIterator[int]:
    """Sends `answer` after the first bytes and says nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def get(port: int, *lines: str) -> bytes:
    head = [f"GET http://a.example:{port}/ HTTP/1.1", f"Host: a.example:{port}", *lines, "", ""]
    return "\r\n".join(head).encode()


def relaying_to(port: int) -> AbstractAsyncContextManager[RelayServer]:
    return relay_server([rule("a.example", (port, "http"))], {"a.example": ["127.0.0.1"]})


async def test_more_header_fields_than_anybody_needs_are_refused() -> None:
    async with relay_server([]) as server:
        reply = await server.raw(get(80, *["a:"] * 300))
        assert b" 431 " in reply.split(b"\r\n")[0]
        assert (await server.finished())[0].reason is Reason.HEADERS_TOO_LARGE


async def test_endless_interim_responses_are_an_error_of_the_origin() -> None:
    async with origin(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100) as port, relaying_to(port) as server:
        reply = await server.raw(get(port, "Connection: close"))
        assert reply.count(b"HTTP/1.1 103") == 32
        assert b"HTTP/1.1 502" in reply
        assert (await server.finished())[0].reason is Reason.UPSTREAM_MALFORMED


async def test_a_client_that_left_does_not_hold_its_exchange() -> None:
    async with origin(b"") as port, relaying_to(port) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(get(port))
        await until(lambda: len(server.gate.live) == 1, "the exchange is under way")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        assert (await server.finished())[0].reason is Reason.CLIENT_CLOSED
        assert len(server.gate.live) == 0


@pytest.mark.parametrize("way", [finish, finish_soon])
async def test_a_connection_that_never_takes_what_was_sent_is_aborted(way: Callable[..., Any]) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 30_000_000)  # more than the kernel takes
        waiting = way(writer, 0.2)
        if waiting is not None:
            await waiting
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        async with asyncio.timeout(15):
            await ended.wait()
    server.close()


async def test_one_client_that_waits_for_many_names_leaves_the_resolver_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(lookups_per_client=3)
    async with relay_server([rule("*.a.example", (80, "http"))], limits=limits) as server:
        goes_on = asyncio.Event()

        async def slowly(host: str) -> Answer:
            await goes_on.wait()
            raise OSError

        monkeypatch.setattr(server.names, "resolve", slowly)
        asked = [
            asyncio.create_task(
                server.raw(f"GET http://{n}.a.example/ HTTP/1.1\r\nHost: {n}.a.example\r\n\r\n".encode())
            )
            for n in range(4)
        ]
        (first,) = await server.finished()
        assert first.reason is Reason.NAME_NOT_RESOLVED
        assert "too many names" in first.detail
        goes_on.set()
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_pipelined_requests_let_others_have_their_turn() -> None:
    async with relay_server([]) as server:
        request = b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"
        _, greedy = await asyncio.open_connection("127.0.0.1", server.port)
        greedy.write(request * 2000)
        waits = []
        for _ in range(20):
            await server.raw(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            waits.append(len(server.seen.exchanges))
        # Without a turn for others, all 2000 would be served before the first of them.
        assert waits[0] < 1000, waits
        greedy.close()
