"""TLS above a bare socket: nothing lost between OpenSSL's memory and the kernel, and no end mistaken for another."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from egress_gateway.relay import tls_connection as module
from egress_gateway.relay.connection import CHUNK, Connection
from egress_gateway.relay.tls_connection import TlsConnection, wrap
from egress_gateway.relay.tls_sessions import Sessions
from relay.test_write_soon import in_one_turn
from support.ca import SessionCa
from support.socket_pair import arrive, pair

ON_EVERY_LOOP = True

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Server:
    """The other end, whose records can be sent as it pleases."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(self.records())
                await self._take()
            else:
                await self.send(self.records())
                return

    def records(self, data: bytes = b"") -> bytes:
        """What is to be sent, with `data` as its last record."""
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    async def send(self, records: bytes) -> None:
        await self._loop.sock_sendall(self.sock, records)

    async def read(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                data = self.tls.read(count - len(got))
                if not data:
                    break
                got += data
            except ssl.SSLWantReadError:
                await self._take()
        return got

    async def _take(self) -> None:
        self._incoming.write(await self._loop.sock_recv(self.sock, 1 << 16))


@asynccontextmanager
async def connected(
    ca: SessionCa,
    version: ssl.TLSVersion = TLS13,
    sessions: Sessions | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[TlsConnection, Server]]:
    ours, theirs = pair()
    context = context or ca.client_context()
    context.maximum_version = version
    server = Server(theirs, ca.issue("a.example").server_context())
    connection = wrap(Connection(ours), context, "a.example", sessions or Sessions())
    try:
        async with asyncio.timeout(30):
            await asyncio.gather(connection.handshake(), server.handshake())
            yield connection, server
    finally:
        connection.abort()
        theirs.close()


async def read_exactly(connection: TlsConnection, count: int, most: int = CHUNK) -> bytes:
    got = b""
    while len(got) < count:
        data = await connection.read(min(most, count - len(got)))
        assert data, "it ended too early"
        got += data
    return got


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
async def test_data_goes_both_ways(ca: SessionCa, version: ssl.TLSVersion) -> None:
    async with connected(ca, version) as (connection, server):
        assert connection.is_silent() or connection.read_now() is None
        for number in range(50):
            connection.write(question := b"question %d" % number)
            assert await server.read(len(question)) == question
            await server.send(server.records(b"answer %d" % number))
            assert await connection.read() == b"answer %d" % number


async def test_what_is_written_soon_goes_with_all_else_of_a_turn_and_in_order(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):

        def act() -> None:
            connection.write_soon(b"one ")
            with pytest.raises(BlockingIOError):
                server.sock.recv(1)
            connection.write(b"two ")
            connection.write_soon(b"three")
            assert connection.unsent

        await in_one_turn(act, lambda: None)
        assert not connection.unsent
        assert await server.read(13) == b"one two three"


async def test_a_record_in_pieces_is_waited_for(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        reading = asyncio.create_task(read_exactly(connection, 10))
        for byte in server.records(b"0123456789"):
            await server.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await reading == b"0123456789"


async def test_records_that_come_together_are_read_one_after_another_without_another_event(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        await server.send(b"".join(server.records(b"%04d" % number) for number in range(500)))
        await asyncio.sleep(0.01)
        want = b"".join(b"%04d" % number for number in range(500))
        assert await read_exactly(connection, len(want)) == want


async def test_half_a_record_behind_a_whole_one_is_not_forgotten(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        first, second = server.records(b"first"), server.records(b"second")
        await server.send(first + second[:7])
        assert await connection.read() == b"first"
        reading = asyncio.create_task(connection.read())
        await asyncio.sleep(0.01)
        await server.send(second[7:])
        assert await reading == b"second"


@pytest.mark.parametrize("most", [1, 1000, CHUNK])
async def test_much_is_read_in_any_pieces(ca: SessionCa, most: int) -> None:
    data = os.urandom(20_000 if most == 1 else 3_000_000)
    async with connected(ca) as (connection, server):
        sending = asyncio.create_task(server.send(server.records(data)))
        assert await read_exactly(connection, len(data), most) == data
        await sending


async def test_no_more_is_taken_out_of_the_kernel_than_openssl_can_use(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        sending = asyncio.create_task(server.send(server.records(bytes(8 << 20))))
        for _ in range(100):
            await read_exactly(connection, 1000)
            assert connection._incoming.pending <= CHUNK + (1 << 15)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_much_is_written_and_the_writer_waits_for_a_slow_reader(ca: SessionCa) -> None:
    data = os.urandom(6_000_000)
    async with connected(ca) as (connection, server):

        async def write() -> None:
            for at in range(0, len(data), 50_000):
                connection.write(data[at : at + 50_000])
                await connection.drain()

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.05)
        assert not writing.done()
        assert connection.unsent < 60_000
        assert await server.read(len(data)) == data
        await writing


@pytest.mark.parametrize("together", [True, False], ids=["with the last data", "later"])
@pytest.mark.parametrize("alert", [True, False], ids=["alert", "bare FIN"])
async def test_only_the_closure_alert_is_an_end_in_peace(ca: SessionCa, alert: bool, together: bool) -> None:
    async with connected(ca) as (connection, server):
        records = server.records(b"last")
        if alert:
            with pytest.raises(ssl.SSLWantReadError):
                server.tls.unwrap()
        ending = server.records()
        if together:
            await server.send(records + ending)
            server.sock.shutdown(socket.SHUT_WR)
        else:
            await server.send(records)
        assert await connection.read() == b"last"
        if not together:
            await server.send(ending)
            server.sock.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert await connection.read() == b""
        assert connection.ended_in_peace is alert


async def test_closing_says_the_closure_alert(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        connection.close()
        assert await server.read(1) == b""


async def test_a_record_that_was_changed_on_the_way_is_an_error(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        record = bytearray(server.records(b"data"))
        record[-1] ^= 1
        await server.send(bytes(record))
        with pytest.raises(ssl.SSLError):
            await connection.read()


async def test_a_failed_handshake_tells_the_peer_why(ca: SessionCa) -> None:
    ours, theirs = pair()
    server = Server(theirs, ca.issue("other.example").server_context())
    connection = wrap(Connection(ours), ca.client_context(), "a.example", Sessions())
    ours_said, theirs_said = await asyncio.gather(connection.handshake(), server.handshake(), return_exceptions=True)
    assert isinstance(ours_said, ssl.SSLCertVerificationError)
    assert isinstance(theirs_said, ssl.SSLError)
    assert "ALERT" in str(theirs_said)
    connection.abort()
    theirs.close()


async def test_an_end_within_the_handshake_is_an_error(ca: SessionCa) -> None:
    ours, theirs = pair()
    connection = wrap(Connection(ours), ca.client_context(), "a.example", Sessions())
    shaking = asyncio.create_task(connection.handshake())
    await asyncio.sleep(0.01)
    theirs.close()
    with pytest.raises(OSError):  # noqa: PT011 - EOF or a reset, by chance
        await shaking
    connection.abort()


async def test_a_host_that_asks_for_answers_and_takes_none_is_ended(
    ca: SessionCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(ca) as (connection, server):
        connection.write(bytes(6_000_000))  # nobody takes it, nor what follows
        assert connection.unsent

        async def ask() -> None:
            for number in range(1000):
                await server.send(server.records(b"x"))
                connection._outgoing.write(b"an answer")
                assert await connection.read() == b"x", number

        with pytest.raises(ConnectionAbortedError):
            await ask()
        assert len(connection._unsent or ()) < 100


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 20])
async def test_is_not_silent_within_a_record(ca: SessionCa, cut: int) -> None:
    """What follows would be taken for the answer to what is asked now."""
    async with connected(ca) as (connection, server):
        first, second = server.records(b"first"), server.records(b"second")
        await server.send(first)
        assert await connection.read() == b"first"
        assert connection.is_silent()
        await server.send(second[:cut])
        arrive(connection.sock)
        await asyncio.sleep(0.01)
        assert connection.read_now() is None
        assert not connection.is_silent()
        await server.send(second[cut:])
        assert await connection.read() == b"second"
        assert connection.is_silent()


async def test_what_the_kernel_has_and_nobody_was_told_of_is_no_silence(ca: SessionCa) -> None:
    async with connected(ca) as (connection, server):
        await server.send(server.records(b"first"))
        assert await connection.read() == b"first"
        server.sock.send(server.records(b"second"))  # no turn of the loop from here on
        arrive(connection.sock)
        assert not connection.is_silent()
        assert connection.read_now() == b"second"


async def test_records_without_data_hold_up_nobody(ca: SessionCa, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host could send them for ever; each read is bounded."""
    async with connected(ca) as (connection, _):
        connection.read_now()  # the sessions that come after the handshake
        monkeypatch.setattr(TlsConnection, "_decrypt", lambda *_: setattr(connection, "_has_more", False))
        monkeypatch.setattr(TlsConnection, "_take_records", lambda *_: True)
        connection._readable = True
        with pytest.raises(ConnectionAbortedError):
            connection.read_now()
    assert module._READS_WITHOUT_DATA < 100
