"""What was written to a client and has not arrived, counted where asyncio has it and where the kernel has it; and what
came from it and was not read."""

from __future__ import annotations

import asyncio
import socket

from egress_gateway.hooks.inspect.outbox import on_the_way, transport_of, unread, unsent
from support.socket_pair import arrive

MUCH = 8_000_000


async def _settled(transport: asyncio.WriteTransport) -> None:
    """Waits for the client's machine to confirm what it has got."""
    async with asyncio.timeout(15):
        while on_the_way(transport):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)


async def test_it_is_counted_until_the_client_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        _, writer = await asyncio.open_connection(sock=listener.accept()[0])
        transport = transport_of(writer)
        assert transport is not None
        assert on_the_way(transport) == 0

        writer.write(b"few")
        await _settled(transport)
        writer.write(bytes(MUCH))
        assert 0 < unsent(transport) < on_the_way(transport) <= MUCH

        def read_all() -> None:
            left = len(b"few") + MUCH
            while left:
                left -= len(client.recv(1 << 20))

        await asyncio.to_thread(read_all)
        await _settled(transport)
        assert unsent(transport) == 0
        writer.close()
        await writer.wait_closed()


async def test_nothing_is_on_the_way_on_a_connection_that_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        _, writer = await asyncio.open_connection(sock=listener.accept()[0])
        transport = transport_of(writer)
        assert transport is not None
        writer.write(bytes(MUCH))
        transport.abort()
        await asyncio.sleep(0.01)
        assert (unsent(transport), on_the_way(transport)) == (0, 0)


async def test_what_has_come_is_unread_until_the_loop_has_had_a_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        reader, writer = await asyncio.open_connection(sock=listener.accept()[0])
        transport = transport_of(writer)
        assert transport is not None
        assert unread(transport) == 0
        client.sendall(b"more")
        arrive(writer.get_extra_info("socket"))
        assert unread(transport) == 4
        assert await reader.read(100) == b"more"
        assert unread(transport) == 0
        transport.abort()
        assert unread(transport) == 0


def test_a_stream_of_mitmproxys_own_has_no_transport() -> None:
    assert transport_of(object()) is None
