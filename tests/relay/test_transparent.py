"""Transparent: the address that the client dialled is one more claim, and the evil address gets no packet."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import AddressCheck, EgressRule
from egress_gateway.policy.ruleset import RuleSet
from support.ca import SessionCa
from support.client_hello import client_hello
from support.relay_server import (
    Origin,
    Peer,
    RelayServer,
    Script,
    Talk,
    answers,
    echo,
    origin,
    relay_server,
    rule,
    talk,
)

ACCESS_DENIED = b"\x15\x03\x01\x00\x02\x02\x31"
UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
EVIL = "127.0.0.66"


@asynccontextmanager
async def dialling(
    address: str, script: Script = answers, protocol: str = "http", *, tls: ssl.SSLContext | None = None, **server: Any
) -> AsyncIterator[tuple[Talk, RelayServer, Origin, Origin]]:
    """A client that thinks it has dialled `address`; the true origin of `a.example` and an evil one, on one port."""
    async with origin(script, tls=tls) as true, origin(echo, address=EVIL, port=true.port) as evil:
        rules = [rule("a.example", (true.port, protocol)), rule("b.example", (true.port, protocol))]
        names = {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.2"]}
        server.setdefault("rules", rules)
        made = relay_server(
            server.pop("rules"),
            names,
            mode="transparent",
            original=(address, true.port),
            **server,
        )
        async with made as relay, talk(relay) as client:
            yield client, relay, true, evil
        assert relay.seen.errors == []
        assert evil.peers == [], "the evil address got a connection"


def get(host: str, path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def test_plain_http_to_an_address_of_the_host_it_names() -> None:
    async with dialling("127.0.0.1") as (client, server, true, _):
        assert (await client.ask(get("a.example", "/1"))).body == b"GET /1 HTTP/1.1"
        assert (await client.ask(get(f"A.Example.:{true.port}", "/2"))).body == b"GET /2 HTTP/1.1"
        assert len(true.peers) == 1
        (first, _) = await server.finished(2)
        assert first.original_destination == ("127.0.0.1", true.port)
        assert first.host == "a.example"


async def test_an_allowed_host_at_another_address_is_refused() -> None:
    """The attack: the name is allowed, the address is the attacker's."""
    async with dialling(EVIL) as (client, server, true, _):
        reply = await client.ask(get("a.example"))
        assert (reply.status, reply.reason) == (403, "address_mismatch")
        (exchange,) = await server.finished()
        assert exchange.detail == f"{EVIL} is not an address of a.example"
        assert server.seen.mismatches == ["address"]
        assert true.peers == [], "it is not sent to the true address either"


async def test_an_allowed_sni_at_another_address_is_refused() -> None:
    async with dialling(EVIL, echo, "https") as (client, server, true, _):
        await client.send(client_hello("a.example"))
        assert await client.rest() == ACCESS_DENIED
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.requested_server_name) == (Reason.ADDRESS_MISMATCH, "a.example")
        assert server.seen.mismatches == ["address"]
        assert len(server.seen.decisions) == 1
        assert true.peers == []


async def test_an_allowed_sni_at_an_address_of_that_host(ca: SessionCa) -> None:
    context = ca.issue("a.example").server_context()
    async with dialling("127.0.0.1", answers, "https", tls=context) as (client, server, _, __):
        await client.start_tls(ca.client_context(), "a.example")
        assert (await client.ask(get("a.example"))).status == 200
        assert server.names.asked == ["a.example"]


async def test_plain_http_to_a_tls_port_leaves_as_verified_tls(ca: SessionCa) -> None:
    context = ca.issue("a.example").server_context()
    async with dialling("127.0.0.1", answers, "https", tls=context, ca_file=str(ca.pem_path)) as (client, _, true, __):
        assert (await client.ask(get("a.example"))).status == 200
        assert true.peers[0].writer.get_extra_info("ssl_object") is not None


async def test_plain_http_to_a_tls_port_of_another_address_is_refused(ca: SessionCa) -> None:
    async with dialling(EVIL, answers, "https", ca_file=str(ca.pem_path)) as (client, _, __, ___):
        assert (await client.ask(get("a.example"))).reason == "address_mismatch"


HTTP: dict[str, tuple[bytes, int, str]] = {
    "a host no rule allows": (get("evil.example"), 403, "no_rule"),
    "another host that is allowed": (get("b.example"), 403, "address_mismatch"),
    "the address itself": (get("127.0.0.1"), 403, "no_rule"),
    "another port": (get("a.example:1"), 400, "malformed_request"),
    "a URI of another host": (
        b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 421, "host_mismatch",
    ),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400, "malformed_request"),
    "CONNECT": (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 400, "malformed_request"),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", 403, "no_rule"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status", "reason"), HTTP.values(), ids=HTTP)
async def test_requests_that_are_refused(data: bytes, status: int, reason: str) -> None:
    async with dialling("127.0.0.1") as (client, server, true, _):
        reply = await client.ask(data)
        assert (reply.status, reply.reason) == (status, reason)
        assert true.peers == []
        assert len(server.seen.decisions) == 1


async def test_each_request_is_judged_by_its_own_host() -> None:
    async with dialling("127.0.0.1") as (client, server, true, _):
        assert (await client.ask(get("a.example"))).status == 200
        assert (await client.ask(get("evil.example"))).reason == "no_rule"
        assert (await client.ask(get("b.example"))).reason == "address_mismatch"
        assert (await client.ask(get("a.example"))).status == 200
        assert b"b.example" not in true.received
        assert server.names.asked == ["a.example", "b.example"]


HELLOS: dict[str, tuple[bytes, bytes, Reason]] = {
    "a host no rule allows": (client_hello("evil.example"), ACCESS_DENIED, Reason.NO_RULE),
    "another host that is allowed": (client_hello("b.example"), ACCESS_DENIED, Reason.ADDRESS_MISMATCH),
    "no name": (client_hello(no_sni=True), ACCESS_DENIED, Reason.NO_RULE),
    "two names": (client_hello("a.example", two_names="b.example"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "an address": (client_hello("127.0.0.1"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
}


@pytest.mark.parametrize(("hello", "alert", "reason"), HELLOS.values(), ids=HELLOS)
async def test_hellos_that_are_refused(hello: bytes, alert: bytes, reason: Reason) -> None:
    async with dialling("127.0.0.1", echo, "https") as (client, server, true, _):
        await client.send(hello)
        assert await client.rest() == alert
        (exchange,) = await server.finished()
        assert exchange.reason is reason
        assert [verdict.reason for verdict in server.seen.decisions] == [reason], "one refusal is one refusal"
        assert true.peers == []


async def test_bytes_that_are_neither_are_refused() -> None:
    async with dialling("127.0.0.1", echo) as (client, server, true, _):
        await client.send(b"SSH-2.0-x\r\n")
        assert await client.rest() == b""
        assert (await server.finished())[0].reason is Reason.NO_RULE
        assert true.peers == []
        assert server.names.asked == []


# --- rules for the address itself ---


def by_address(*entries: tuple[str, str], port: int) -> list[EgressRule]:
    return [rule(service, (port, protocol), name=f"{number}") for number, (service, protocol) in enumerate(entries)]


async def test_a_tcp_rule_for_the_network_lets_anything_through_and_the_server_speak_first() -> None:
    async def greet(peer: Peer) -> None:
        await peer.send(b"hello, this is the server\n")
        await echo(peer)

    async with dialling("127.0.0.1", greet) as (_client, server, true, _):
        # The relay has looked at the rules when the client connected, so a second client gets the new ones.
        server.gate.use(RuleSet.build(by_address(("127.0.0.1/32", "tcp"), port=true.port)))
        async with talk(server) as another:
            assert await another.until(b"\n") == b"hello, this is the server\n"
            await another.send(client_hello("whatever.example"))
            assert await another.exactly(len(client_hello("whatever.example"))) == client_hello("whatever.example")
            another.half_close()
            assert await another.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.protocol, exchange.authority) == ("TCP", f"127.0.0.1:{true.port}")
        assert server.names.asked == []


async def test_a_tcp_rule_by_name_covers_the_addresses_that_the_name_has() -> None:
    async with dialling("127.0.0.1", echo) as (_client, server, true, _):
        server.gate.use(RuleSet.build([rule("a.example", (true.port, "tcp"))]))
        async with talk(server) as another:
            await another.send(b"SSH-2.0-x\r\n")
            assert await another.exactly(11) == b"SSH-2.0-x\r\n"
            another.half_close()
            assert await another.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.authority, exchange.address_check) == (f"a.example:{true.port}", "match")


async def test_a_tcp_rule_by_name_covers_no_other_address() -> None:
    async with dialling(EVIL, echo) as (_client, server, true, _):
        server.gate.use(RuleSet.build([rule("a.example", (true.port, "tcp"))]))
        async with talk(server) as another:
            await another.send(b"SSH-2.0-x\r\n")
            assert await another.rest_or_reset() == b""
        (exchange,) = await server.finished()
        assert not exchange.verdict.allowed


# --- check: redial, check: audit ---


@pytest.mark.parametrize("check", [AddressCheck.REDIAL, AddressCheck.AUDIT])
async def test_another_address_is_redialled_at_the_names_own(check: AddressCheck) -> None:
    async with dialling(EVIL) as (client, server, true, _):
        server.gate.use(RuleSet.build([rule("a.example", (true.port, "http"), check=check)]))
        assert (await client.ask(get("a.example", "/1"))).status == 200
        assert (await client.ask(get("a.example", "/2"))).status == 200
        assert len(true.peers) == 1, "the second request goes over the same connection"
        exchange = (await server.finished(2))[0]
        assert exchange.original_destination == (EVIL, true.port)
        assert exchange.upstream == (ip_address("127.0.0.1"), true.port)
        assert exchange.detail == f"{EVIL} is not an address of a.example"
        assert server.seen.mismatches == (["address"] if check is AddressCheck.AUDIT else [])


@pytest.mark.parametrize("check", [AddressCheck.REDIAL, AddressCheck.AUDIT])
async def test_tls_too(check: AddressCheck) -> None:
    async with dialling(EVIL, echo, "https") as (client, server, true, _):
        server.gate.use(RuleSet.build([rule("a.example", (true.port, "https"), check=check)]))
        hello = client_hello("a.example")
        await client.send(hello)
        assert await client.exactly(len(hello)) == hello
        assert len(true.peers) == 1


async def test_where_only_addresses_are_allowed_nobody_waits_for_a_word() -> None:
    async with dialling(EVIL, echo, rules=[]) as (_client, server, true, _):
        server.gate.use(RuleSet.build(by_address(("127.0.0.0/28", "tcp"), port=true.port)))
        async with talk(server) as another:
            assert await another.rest() == b""
        assert (await server.finished())[0].reason is Reason.NO_RULE


async def test_a_tcp_rule_for_another_network_lets_nothing_through() -> None:
    async with dialling(EVIL, echo, rules=[]) as (_, server, true, __):
        server.gate.use(RuleSet.build(by_address(("127.0.0.0/28", "tcp"), port=true.port)))
        async with talk(server) as another:
            await another.send(b"SSH-2.0-x\r\n")
            assert await another.rest_or_reset() == b""


async def test_an_http_rule_for_the_address() -> None:
    async with dialling("127.0.0.1") as (client, server, true, _):
        server.gate.use(RuleSet.build(by_address(("127.0.0.1", "http"), port=true.port)))
        assert (await client.ask(get("127.0.0.1"))).status == 200
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
        assert server.names.asked == []


async def test_an_http_rule_for_the_address_does_not_allow_a_name() -> None:
    async with dialling("127.0.0.1") as (client, server, true, _):
        server.gate.use(RuleSet.build(by_address(("127.0.0.1", "http"), port=true.port)))
        assert (await client.ask(get("a.example"))).reason == "no_rule"


async def test_the_gateway_itself_dialled_directly_is_refused() -> None:
    async with relay_server([], mode="transparent", original=("127.0.0.1", 1)) as server:
        server.gate.use(RuleSet.build([rule("127.0.0.1", (1, "tcp"))]))
        server.gate.own_ports = frozenset({1})
        async with talk(server) as client:
            with pytest.raises(ConnectionResetError):
                await closed(client)
        assert (await server.finished())[0].reason is Reason.OWN_ADDRESS
        assert len(server.seen.exchanges) == 1


async def closed(client: Talk) -> None:
    if await client.rest() == b"":
        raise ConnectionResetError
