"""Whether anything is going on for a client that the runner has accepted, so that ending it does harm."""

from __future__ import annotations

import socket

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Settings
from egress_gateway.hooks.guest import Guest
from egress_gateway.policy.events import Observer
from egress_gateway.relay.connection import Connection
from egress_gateway.relay.stream import Input
from support.relay_server import Names


class Nothing:
    """A side that says nothing and takes everything."""

    async def read(self, n: int = -1) -> bytes:
        return b""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    async def drain(self) -> None: ...
    async def wait_closed(self) -> None: ...


async def test_idle_is_who_has_said_nothing_and_who_has_been_answered() -> None:
    gate = Gatekeeper(Names({}), Observer(), Settings())
    guest = Guest(gate, Input(Nothing()), Nothing(), ("192.0.2.1", 1))
    assert guest.is_idle
    guest.input.buffer += b"GET /"
    assert not guest.is_idle, "part of a request is there"
    guest.input.buffer.clear()
    first = guest.begin()
    assert not guest.is_idle
    first.start_time -= 1
    gate.finish(first)
    assert guest.is_idle
    guest.begin()
    assert not guest.is_idle, "what began last counts"


async def test_who_has_asked_is_not_idle_though_nobody_had_time_to_read_it() -> None:
    gate = Gatekeeper(Names({}), Observer(), Settings())
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(ours)
        guest = Guest(gate, Input(connection), connection, ("192.0.2.1", 1))
        assert guest.is_idle
        theirs.sendall(b"GET /")
        assert not guest.is_idle
        assert await connection.read() == b"GET /"
        assert guest.is_idle
        theirs.shutdown(socket.SHUT_WR)
        assert guest.is_idle, "an end is no request"
        connection.close()
        assert guest.is_idle
