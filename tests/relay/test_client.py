"""The ways to end the client's side of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Settings
from egress_gateway.relay import client as module
from egress_gateway.relay.client import Client, abort, can_write_eof
from egress_gateway.relay.stream import Input
from support.relay_server import Names, Peer, Recorder, Script, origin
from support.waiting import until


def client_of(peer: Peer) -> Client:
    gate = Gatekeeper(Names({}), Recorder(), Settings())
    return Client(gate, Input(peer.reader), peer.writer, ("127.0.0.1", 1))


async def answered(script: Script, send: bytes, *, half_close: bool = False) -> bytes:
    async with origin(script) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        try:
            writer.write(send)
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(15):
                return await reader.read()
        finally:
            writer.close()


@pytest.mark.usefixtures("long_linger")
async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    """Without lingering, the kernel answers what was not read with RST, which overtakes the refusal."""

    async def script(peer: Peer) -> None:
        await peer.more()
        peer.writer.write(b"refused")
        await client_of(peer).linger()

    assert await answered(script, bytes(900_000)) == b"refused"


@pytest.mark.usefixtures("steady")
async def test_a_client_that_does_not_end_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.1)
    waited: list[float] = []

    async def script(peer: Peer) -> None:
        started = asyncio.get_running_loop().time()
        await client_of(peer).linger()
        waited.append(asyncio.get_running_loop().time() - started)

    async with origin(script) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        assert await reader.read() == b"", "the gateway's direction ends at once"
        await until(lambda: waited, "the client is given up")
        writer.close()
    assert 0.08 < waited[0] < 0.5


@pytest.mark.usefixtures("long_linger")
async def test_a_client_that_never_stops_sending_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_BYTES", 100_000)
    read: list[int] = []

    async def script(peer: Peer) -> None:
        made = client_of(peer)
        await made.linger()
        read.append(1)

    async with origin(script) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.port)

        async def send_for_ever() -> None:
            async with asyncio.timeout(15):
                while True:
                    writer.write(bytes(10_000))
                    await writer.drain()

        with pytest.raises(ConnectionError):
            await send_for_ever()
        writer.close()
    assert read


async def test_an_abort_is_a_reset_for_the_other_side() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"half a respon")
        abort(peer.writer)
        abort(peer.writer)

    with pytest.raises(ConnectionResetError):
        await answered(script, b"")


def test_a_writer_without_a_transport_is_closed() -> None:
    class Rust:
        closed = False

        def close(self) -> None:
            self.closed = True

    stream: Any = Rust()
    abort(stream)
    assert stream.closed
    assert can_write_eof(stream)
