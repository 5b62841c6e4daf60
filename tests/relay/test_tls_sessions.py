"""Sessions are resumed for the same name under the same settings only, and not for ever."""

from __future__ import annotations

import ssl

import pytest

from egress_gateway.policy.hostname import Hostname
from egress_gateway.relay import tls_sessions as module
from egress_gateway.relay.tls_sessions import Sessions, TlsSessions
from relay.test_tls_connection import connected
from support.ca import SessionCa
from support.relay_server import Peer, answers, origin, relay_server, request, rule, talk

A, B = Hostname("a.example"), Hostname("b.example")


def some_session(ca: SessionCa) -> ssl.SSLSession:
    """A session of a real handshake, over no network."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ca.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the session is there when the handshake is over
    client = context.wrap_bio(ours, theirs, server_hostname="a.example")
    server = ca.issue("a.example").server_context().wrap_bio(theirs, ours, server_side=True)
    for side in (client, server, client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.session is not None
    return client.session


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_one_is_used_again_and_again(ca: SessionCa) -> None:
    kept, session = Sessions(), some_session(ca)
    assert kept.take() is None
    kept.put(session)
    assert kept.take() is session
    assert kept.take() is session


def test_one_that_is_too_old_is_not_used(ca: SessionCa) -> None:
    clock = Clock()
    kept, session = Sessions(clock), some_session(ca)
    kept.put(session)
    clock.now += min(session.timeout, module._LONGEST_USE) - 1
    assert kept.take() is session
    clock.now += 1
    assert kept.take() is None
    assert kept.wants()


def test_another_one_is_wanted_where_there_is_none_and_that_seldom(ca: SessionCa) -> None:
    clock = Clock()
    kept = Sessions(clock)
    assert kept.wants()
    assert not kept.wants(), "who was told so looks already"
    clock.now += module._ASK_EVERY
    assert kept.wants()
    kept.put(some_session(ca))
    clock.now += module._ASK_EVERY
    assert not kept.wants(), "there is one"
    kept.refused()
    assert kept.take() is None
    assert kept.wants()


def test_destinations_are_told_apart_by_name_and_by_settings() -> None:
    one, other, sessions = ssl.create_default_context(), ssl.create_default_context(), TlsSessions()
    assert sessions.of(one, A) is sessions.of(one, A)
    assert len({id(sessions.of(one, A)), id(sessions.of(one, B)), id(sessions.of(other, A))}) == 3


def test_the_destination_that_was_not_used_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_DESTINATIONS", 2)
    context, sessions = ssl.create_default_context(), TlsSessions()
    a, b = sessions.of(context, A), sessions.of(context, B)
    assert sessions.of(context, A) is a
    sessions.of(context, Hostname("c.example"))
    assert sessions.of(context, A) is a
    assert sessions.of(context, B) is not b


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_to_a_destination_resumes(ca: SessionCa, version: ssl.TLSVersion) -> None:
    """Connections themselves are never shared between clients."""
    context = ca.issue("a.example", "b.example").server_context()
    context.maximum_version = version
    resumed: list[bool] = []

    async def script(peer: Peer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await answers(peer)

    async with origin(script, tls=context) as there:
        rules = [rule(name, (there.port, "https")) for name in ("a.example", "b.example")]
        names = {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]}
        async with relay_server(rules, names, ca_file=str(ca.pem_path)) as relay:
            for host in ("a.example", "a.example", "b.example", "a.example"):
                async with talk(relay) as client:
                    reply = await client.ask(request(there, host=host))
                    assert (reply.status, reply.body) == (200, b"GET / HTTP/1.1")
    assert resumed == [False, True, False, True]


async def test_a_session_that_the_destination_has_forgotten_is_replaced(
    ca: SessionCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ASK_EVERY", 0.0)
    sessions, context, kept = Sessions(), ca.client_context(), []
    for _ in range(2):  # each time a server that knows nothing of the other
        async with connected(ca, sessions=sessions, context=context) as (connection, server):
            assert not connection.resumed
            await server.send(server.records(b"x"))
            assert await connection.read() == b"x"
        kept.append(sessions.take())
    assert None not in kept
    assert kept[0] is not kept[1]


async def test_many_connections_lose_no_memory(ca: SessionCa) -> None:
    """Each session that Python is asked for is lost, in some versions."""
    asked = 0

    class Counting(Sessions):
        __slots__ = ()

        def put(self, session: ssl.SSLSession) -> None:
            nonlocal asked
            asked += 1
            super().put(session)

    sessions, context = Counting(), ca.client_context()
    for _ in range(10):
        async with connected(ca, sessions=sessions, context=context) as (connection, server):
            await server.send(server.records(b"x"))
            assert await connection.read() == b"x"
    assert asked == 1
