"""Both ways by reading and writing, for sides that are no bare sockets: here asyncio's own streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from egress_gateway.policy.events import Exchange
from egress_gateway.relay.pump import pump
from egress_gateway.relay.stream import Input
from support.relay_server import Peer, Talk


class Pumped:
    def __init__(self, client: Talk, upstream: Peer, pumping: asyncio.Task[None], exchange: Exchange) -> None:
        self.client = client
        self.upstream = upstream
        self.pumping = pumping
        self.exchange = exchange


@contextlib.asynccontextmanager
async def pumped(seconds: float = 30.0) -> AsyncIterator[Pumped]:
    """A client and a destination, and the pump between them."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    far = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    near = [await accepted.get() for _ in range(2)]
    exchange = Exchange(0.0)
    (client, client_writer), (upstream, upstream_writer) = near
    pumping = asyncio.create_task(
        pump(Input(client), client_writer, Input(upstream), upstream_writer, exchange, seconds)
    )
    try:
        yield Pumped(Talk(*far[0]), Peer(*far[1]), pumping, exchange)
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        for _, writer in (*far, *near):
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0)


async def test_bytes_go_both_ways_and_each_direction_ends_on_its_own() -> None:
    async with pumped() as there:
        data = bytes(range(256)) * 2000
        sending = asyncio.create_task(there.client.send(data))
        assert await there.upstream.exactly(len(data)) == data
        await sending
        there.client.half_close()
        assert await there.upstream.rest() == b""
        await there.upstream.send(b"still here")
        assert await there.client.exactly(10) == b"still here"
        there.upstream.half_close()
        assert await there.client.rest() == b""
        await there.pumping
        assert (there.exchange.bytes_received, there.exchange.bytes_sent) == (len(data), 10)


async def test_a_side_that_is_lost_is_an_error() -> None:
    async with pumped() as there:
        await there.client.send(b"half a mes")
        await there.upstream.until(b"half a mes")
        there.client.reset()
        with pytest.raises(ConnectionResetError):
            await there.pumping


@pytest.mark.usefixtures("steady")
async def test_where_nothing_moves_it_is_a_timeout() -> None:
    async with pumped(seconds=0.2) as there:
        for _ in range(3):
            await asyncio.sleep(0.1)
            await there.client.send(b"x")
            assert await there.upstream.exactly(1) == b"x", "as long as something moves it lives"
        with pytest.raises(TimeoutError):
            await there.pumping
