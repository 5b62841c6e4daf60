"""Connections kept for one client: only such as are open, silent, and to an address that may be reached."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, Settings
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment
from egress_gateway.relay.connection import NO_LINGER, Connection
from egress_gateway.relay.upstream import Failed, Upstream, UpstreamPool, connect
from egress_gateway.relay.upstream_tls import TlsContexts
from support.relay_server import Names, Recorder, echo, origin, rule
from support.socket_pair import arrive
from support.waiting import until

A = Hostname("a.example")


def gatekeeper(addresses: list[str], *, private: bool = True, **settings: Any) -> Gatekeeper:
    gate = Gatekeeper(Names({"a.example": addresses}), Recorder(), Settings(**settings))
    gate.use(RuleSet.build([rule("a.example", (80, "http"), allow_private=private)]))
    gate.open()
    return gate


@pytest.fixture
def upstream() -> Iterator[Callable[..., tuple[Upstream, socket.socket]]]:
    """`upstream(address)` makes an open connection, and the destination's end of it."""
    ends: list[socket.socket] = []

    def make(address: str = "127.0.0.1") -> tuple[Upstream, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        ends.extend((ours, theirs))
        return Upstream(Connection(ours), ip_address(address), 80), theirs

    yield make
    for end in ends:
        end.close()


type MakeUpstream = Callable[..., tuple[Upstream, socket.socket]]


def key(number: int) -> tuple[Hostname, int, Treatment]:
    return (Hostname(f"h{number}.example"), 80, Treatment.FORWARD)


async def test_what_was_given_can_be_taken_once_and_by_its_key_only(upstream: MakeUpstream) -> None:
    gate = gatekeeper(["127.0.0.1"])
    pool, verdict = UpstreamPool(gate), gate.decide(Request(A, 80, Spoken.HTTP), "http")
    kept, _ = upstream()
    pool.give(key(1), kept)
    assert kept.used
    assert pool.take(key(2), verdict) is None
    assert pool.take((Hostname("h1.example"), 81, Treatment.FORWARD), verdict) is None
    assert pool.take((Hostname("h1.example"), 80, Treatment.ORIGINATE), verdict) is None
    assert pool.take(key(1), verdict) is kept
    assert pool.take(key(1), verdict) is None


@pytest.mark.parametrize("what", ["closed", "read ahead", "ended", "unread", "reset"])
async def test_a_connection_that_is_closed_or_not_silent_is_not_used_again(what: str, upstream: MakeUpstream) -> None:
    gate = gatekeeper(["127.0.0.1"])
    pool, verdict = UpstreamPool(gate), gate.decide(Request(A, 80, Spoken.HTTP), "http")
    kept, theirs = upstream()
    pool.give(key(1), kept)
    if what == "closed":
        kept.connection.close()
    elif what == "read ahead":
        kept.input.buffer += b"HTTP/1.1 200 OK"
    elif what == "ended":
        theirs.close()
    elif what == "unread":
        theirs.sendall(b"HTTP/1.1 200 OK")
    else:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        theirs.close()
    if what in ("ended", "unread", "reset"):
        arrive(kept.connection.sock)
    assert pool.take(key(1), verdict) is None
    assert kept.connection.is_closing()


async def test_an_address_that_the_verdict_may_not_reach_is_not_used_again(upstream: MakeUpstream) -> None:
    gate = gatekeeper(["127.0.0.1"], private=False)
    pool, verdict = UpstreamPool(gate), gate.decide(Request(A, 80, Spoken.HTTP), "http")
    kept, _ = upstream()
    pool.give(key(1), kept)
    assert pool.take(key(1), verdict) is None
    assert kept.connection.is_closing()


async def test_the_oldest_makes_room_and_a_second_of_the_same_replaces_the_first(
    upstream: MakeUpstream,
) -> None:
    pool, kept = UpstreamPool(gatekeeper([]), most=2), [upstream()[0] for _ in range(4)]
    pool.give(key(0), kept[0])
    pool.give(key(1), kept[1])
    pool.give(key(0), kept[2])
    assert [one.connection.is_closing() for one in kept] == [True, False, False, False]
    pool.give(key(2), kept[3])
    assert [one.connection.is_closing() for one in kept] == [True, True, False, False]
    pool.close()
    assert all(one.connection.is_closing() for one in kept)


async def connected(gate: Gatekeeper, port: int) -> Upstream | Failed:
    gate.use(RuleSet.build([rule("a.example", (port, "tcp"), allow_private=True)]))
    request = Request(A, port)
    exchange = gate.begin(("127.0.0.1", 1))
    verdict = gate.decide(request, "tcp")
    return await connect(gate, TlsContexts(gate.settings.tls), request, verdict, exchange, "tcp")


async def test_the_address_that_was_judged_is_the_one_that_is_dialled() -> None:
    """Of several only those that may be reached, whatever their order; a forbidden one is not even tried."""
    async with origin(echo) as there, origin(echo, address="127.0.0.66", port=there.port) as other:
        gate = gatekeeper(["240.0.0.1", "169.254.169.254", "127.0.0.1"])
        made = await connected(gate, there.port)
        assert isinstance(made, Upstream)
        assert made.address == ip_address("127.0.0.1")
        made.connection.close()
        assert other.peers == []


async def test_a_destination_that_does_not_answer_in_time() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than it keeps for who accepts; it answers nobody else then
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        gate = gatekeeper(["127.0.0.1"], limits=Limits(connect_timeout=0.1))
        made = await connected(gate, listener.getsockname()[1])
        assert isinstance(made, Failed)
        assert made.reason is Reason.CONNECT_TIMEOUT
        assert isinstance(gate.observer, Recorder)
        assert gate.observer.failures == [made.reason]


async def test_where_nobody_listens() -> None:
    gate = gatekeeper(["127.0.0.9"])
    made = await connected(gate, 1)
    assert isinstance(made, Failed)
    assert (made.reason, made.refused) == (Reason.CONNECT_FAILED, False)
    assert "connection refused" in made.detail


async def test_the_local_address_is_the_one_that_was_set() -> None:
    async with origin(echo) as there:
        made = await connected(gatekeeper(["127.0.0.1"], local_address="127.0.0.7"), there.port)
        assert isinstance(made, Upstream)
        await until(lambda: there.peers, "the destination has it")
        made.connection.close()
        assert there.peers[0].writer.get_extra_info("peername")[0] == "127.0.0.7"
