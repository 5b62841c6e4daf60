"""The explicit proxy: CONNECT is granted where the rules allow the destination at all, and not before."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import RuleAction
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import Origin, answers, conversation, echo, origin, relay_server, request, rule, talk
from support.waiting import until


def connect(authority: str, *fields: str, version: str = "1.1") -> bytes:
    if not any(field.lower().startswith("host:") for field in fields):
        fields = (f"Host: {authority}", *fields)
    return "\r\n".join([f"CONNECT {authority} HTTP/{version}", *fields, "\r\n"]).encode()


async def test_a_tunnel_is_granted_before_anything_is_resolved() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.send(connect(f"a.example:{there.port}"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert server.names.asked == []
        assert there.peers == []


async def test_a_tunnel_of_bytes_is_granted_when_it_stands() -> None:
    async with conversation(echo, "tcp") as (client, server, there):
        await client.send(connect(f"a.example:{there.port}"))
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await until(lambda: there.peers, "it stands")
        assert server.names.asked == ["a.example"]


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "a host no rule allows": (connect("evil.example:443"), 403, "no_rule"),
    "an address no rule allows": (connect("127.0.0.1:443"), 403, "no_rule"),
    "the same in another spelling": (connect("0x7f.1:443"), 403, "no_rule"),
    "the same, mapped": (connect("[::ffff:127.0.0.1]:443"), 403, "no_rule"),
    "a port no rule allows": (connect("a.example:1"), 403, "port_not_allowed"),
    "a host that a rule denies": (connect("bad.example:443"), 403, "denied_by_rule"),
    "an address that may not be reached": (connect("10.0.0.1:443"), 403, "address_not_allowed"),
    "the same in another spelling, which may not be reached": (connect("0xa000001:443"), 403, "address_not_allowed"),
    "another host in Host": (connect("a.example:443", "Host: b.example:443"), 421, "host_mismatch"),
    "another port in Host": (connect("a.example:443", "Host: a.example:80"), 421, "host_mismatch"),
    "two Hosts": (connect("a.example:443", "Host: a.example", "Host: a.example"), 400, "malformed_request"),
    "a body": (connect("a.example:443", "Content-Length: 5"), 400, "malformed_request"),
    "no port": (connect("a.example"), 400, "malformed_host"),
    "port 0": (connect("a.example:0"), 400, "malformed_host"),
    "a NUL": (connect("a.example\0:443"), 400, "malformed_request"),
    "an empty label": (connect("a..example:443"), 400, "malformed_host"),
    "a URI": (connect("http://a.example:443/"), 400, "malformed_host"),
}


@pytest.mark.parametrize(("data", "status", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_tunnel_that_is_refused(data: bytes, status: int, reason: str) -> None:
    rules = [
        rule("a.example", (443, "https")),
        rule("bad.example", (443, "https"), action=RuleAction.DENY),
        rule("10.0.0.1", (443, "https")),
    ]
    async with relay_server(rules) as server, talk(server) as client:
        reply = await client.ask(data + b"\x16\x03\x01\x00\x05hello")
        assert (reply.status, reply.reason) == (status, reason)
        assert reply.values("connection") == ["close"]
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert not exchange.verdict.allowed
        assert [verdict.reason.value for verdict in server.seen.decisions] == [reason]
        assert server.names.asked == []
        assert server.seen.errors == []


async def test_a_refusal_tells_what_would_help() -> None:
    async with relay_server([rule("*.a.example", (443, "https"))]) as server, talk(server) as client:
        reply = await client.ask(connect("a.example:443"))
        assert b"does not cover a.example itself" in reply.body
        assert b'destination: {service: "a.example"}' in reply.body


async def test_a_refusal_can_be_short() -> None:
    async with (
        relay_server([rule("*.a.example", (443, "https"))], refusal_detail="reason") as server,
        talk(server) as client,
    ):
        reply = await client.ask(connect("a.example:443"))
        assert reply.reason == "no_rule"
        assert b"service" not in reply.body
        assert b"default/" not in reply.body + reply.head


FAILED: dict[str, tuple[list[str], int, str]] = {
    "a name that does not resolve": ([], 502, "name_not_resolved"),
    "a destination where nobody listens": (["127.0.0.9"], 502, "connect_failed"),
    "an address that may not be reached": (["10.0.0.1"], 403, "address_not_allowed"),
}


@pytest.mark.parametrize(("addresses", "status", "reason"), FAILED.values(), ids=FAILED)
async def test_a_tunnel_of_bytes_that_cannot_be_made(addresses: list[str], status: int, reason: str) -> None:
    async with conversation(echo, "tcp") as (client, server, there):
        server.names.names = {"a.example": addresses} if addresses else {}
        reply = await client.ask(connect(f"a.example:{there.port}"))
        assert (reply.status, reply.reason) == (status, reason)
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert exchange.reason.value == reason
        assert len(server.seen.decisions) == 1


async def test_a_tunnel_to_an_address_by_its_rule() -> None:
    async with (
        origin(echo) as there,
        relay_server([rule("127.0.0.0/8", (there.port, "tcp"))]) as server,
        talk(server) as client,
    ):
        await client.tunnel(f"127.0.0.1:{there.port}")
        await client.send(b"hello")
        assert await client.until(b"hello") == b"hello"
        assert server.names.asked == []


async def test_a_tunnel_after_a_request_on_the_same_connection() -> None:
    async with conversation(answers) as (client, _, there):
        assert (await client.ask(request(there))).status == 200
        await client.tunnel(f"a.example:{there.port}")
        assert (await client.ask(b"GET /in HTTP/1.1\r\nHost: a.example\r\n\r\n")).body == b"GET /in HTTP/1.1"
        assert len(there.peers) == 2


async def test_connect_in_lower_case_is_a_method_like_any_other() -> None:
    async with conversation(answers) as (client, server, there):
        reply = await client.ask(connect(f"a.example:{there.port}", "Host: a.example").replace(b"CONNECT", b"connect"))
        assert (reply.status, reply.reason) == (400, "malformed_request")
        assert server.names.asked == []


async def test_an_http_1_0_client_may_ask_for_a_tunnel() -> None:
    async with conversation(echo, "tcp") as (client, _, there):
        await client.send(connect(f"a.example:{there.port}", version="1.0"))
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_through_the_gateway_the_gateway_is_not_reached() -> None:
    async with relay_server([], {"me.example": ["127.0.0.1"]}) as server:
        names = ("me.example", "127.0.0.1", "127.0.0.3")
        server.gate.use(RuleSet.build([rule(name, (server.port, "tcp"), name=name) for name in names]))
        for host in ("me.example", "127.0.0.1", "127.1", "0x7f000003", "[::ffff:127.0.0.1]"):
            async with talk(server) as client:
                reply = await client.ask(connect(f"{host}:{server.port}"))
                assert (reply.status, reply.reason) == (403, "own_address"), host
        assert len(await server.finished(5)) == 5
        assert server.seen.errors == []


async def test_allow_private_does_not_open_the_gateway_itself() -> None:
    async with relay_server([], public_ranges=(ip_network("203.0.113.0/24"),)) as server:
        server.gate.use(RuleSet.build([rule("127.0.0.1", (server.port, "tcp"), allow_private=True)]))
        async with talk(server) as client:
            assert (await client.ask(connect(f"127.0.0.1:{server.port}"))).reason == "own_address"


async def test_what_is_not_http_is_refused() -> None:
    for data in (b"\x05\x01\x00", b"\x16\x03\x01\x00\x05hello\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\0" * 100):
        async with relay_server([rule("*", (443, "tcp"))]) as server, talk(server) as client:
            await client.send(data)
            client.half_close()
            reply = await client.reply()
            assert (reply.status, reply.reason) == (400, "malformed_request")
            assert await client.rest() == b""
            assert server.seen.errors == []


async def test_a_verdict_is_told_in_the_form_the_client_likes() -> None:
    here = Origin(80)
    async with relay_server([]) as server, talk(server) as client:
        reply = await client.ask(request(here, "/", "Accept: application/problem+json"))
        assert reply.values("content-type") == ["application/problem+json"]
        reply = await client.ask(connect("a.example:443", "Accept: text/html"))
        assert reply.values("content-type") == ["text/html; charset=utf-8"]
        assert reply.reason == Reason.NO_RULE
