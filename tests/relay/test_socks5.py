"""SOCKS5: `succeeded` is said after the verdict, never before; everything else has its code."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from egress_gateway.gate.settings import Limits
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.relay.socks5 import REPLY_FOR, reply
from support.client_hello import client_hello
from support.relay_server import RelayServer, answers, conversation, echo, origin, relay_server, rule, talk
from support.waiting import until

GREETING = b"\x05\x01\x00"
CHOSEN = b"\x05\x00"


def wanted(host: str | bytes, port: int, *, command: int = 1, reserved: int = 0, version: int = 5) -> bytes:
    head = bytes([version, command, reserved])
    if isinstance(host, str):
        try:
            address = ip_address(host)
            head += bytes([1 if address.version == 4 else 4]) + address.packed
        except ValueError:
            head += bytes([3, len(host)]) + host.encode()
    else:
        head += bytes([3, len(host)]) + host
    return head + port.to_bytes(2)


def code(number: int) -> bytes:
    return bytes([5, number, 0, 1]) + bytes(6)


def test_a_reply_says_nothing_about_our_network() -> None:
    assert reply(0) == code(0)


async def test_bytes_to_a_destination_that_is_allowed() -> None:
    async with conversation(echo, "tcp", mode="socks5") as (client, server, there):
        await client.send(GREETING)
        assert await client.exactly(2) == CHOSEN
        await client.send(wanted("a.example", there.port))
        assert await client.exactly(10) == code(0)
        await until(lambda: there.peers, "a byte stream is granted when it stands")
        await client.send(b"hello")
        assert await client.exactly(5) == b"hello"
        client.half_close()
        assert await client.rest() == b""
        (exchange,) = await server.finished()
        assert (exchange.protocol, exchange.authority) == ("TCP", f"a.example:{there.port}")


async def test_the_whole_conversation_in_one_packet() -> None:
    async with conversation(echo, "tcp", mode="socks5") as (client, _, there):
        await client.send(GREETING + wanted("a.example", there.port) + b"hello")
        assert await client.exactly(17) == CHOSEN + code(0) + b"hello"


async def test_the_handshake_one_byte_at_a_time() -> None:
    async with conversation(echo, "tcp", mode="socks5") as (client, _, there):
        await client.bytewise(GREETING + wanted("a.example", there.port) + b"hello")
        assert await client.exactly(17) == CHOSEN + code(0) + b"hello"


async def test_tls_and_http_are_granted_by_the_rules_alone_and_judged_by_their_first_bytes() -> None:
    async with conversation(answers, mode="socks5") as (client, server, there):
        await client.send(GREETING + wanted("a.example", there.port))
        assert await client.exactly(12) == CHOSEN + code(0)
        assert server.names.asked == []
        assert there.peers == []
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).status == 200
        refused = await client.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (refused.status, refused.reason) == (421, "host_mismatch")


async def test_the_sni_must_be_the_host_of_the_handshake() -> None:
    async with conversation(echo, "https", mode="socks5") as (client, server, there):
        await client.send(GREETING + wanted("a.example", there.port) + client_hello("evil.example"))
        assert await client.rest() == CHOSEN + code(0) + b"\x15\x03\x01\x00\x02\x02\x70"
        assert (await server.finished())[0].reason is Reason.SNI_MISMATCH
        assert server.names.asked == []
        assert there.peers == []


HOSTS = {
    "a name in capitals, with a dot": "A.EXAMPLE.",
    "an IPv4 address": "127.0.0.1",
    "an IPv4 address as a name": b"127.0.0.1",
    "an IPv4 address in another spelling": b"0x7f.1",
    "an IPv4 address as a mapped IPv6 address": "::ffff:127.0.0.1",
    "the same as a name": b"::ffff:127.0.0.1",
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_every_spelling_of_a_host_that_is_allowed(host: str | bytes) -> None:
    async with conversation(echo, "tcp", mode="socks5") as (client, server, there):
        both = [rule("a.example", (there.port, "tcp")), rule("127.0.0.1", (there.port, "tcp"))]
        server.gate.use(RuleSet.build(both))
        await client.send(GREETING + wanted(host, there.port))
        assert await client.exactly(12) == CHOSEN + code(0)


REFUSED: dict[str, tuple[str | bytes, int, int, Reason]] = {
    "a host no rule allows": ("evil.example", 443, 2, Reason.NO_RULE),
    "an address no rule allows": ("127.0.0.1", 443, 2, Reason.NO_RULE),
    "an IPv6 address no rule allows": ("::1", 443, 2, Reason.NO_RULE),
    "a port no rule allows": ("a.example", 1, 2, Reason.PORT_NOT_ALLOWED),
    "an address that may not be reached": ("10.0.0.1", 443, 2, Reason.ADDRESS_NOT_ALLOWED),
    "a name that has only such an address": ("private.example", 443, 2, Reason.ADDRESS_NOT_ALLOWED),
    "the gateway itself": ("me.example", 0, 2, Reason.OWN_ADDRESS),
    "a name that does not resolve": ("nowhere.example", 443, 4, Reason.NAME_NOT_RESOLVED),
    "a destination where nobody listens": ("closed.example", 443, 4, Reason.CONNECT_FAILED),
    "an empty name": (b"", 443, 2, Reason.MALFORMED_HOST),
    "a malformed name": (b"a..example", 443, 2, Reason.MALFORMED_HOST),
    "a NUL in a name": (b"a.example\0.evil", 443, 2, Reason.MALFORMED_HOST),
    "a zone": (b"fe80::1%lo", 443, 2, Reason.MALFORMED_HOST),
    "a name that is not UTF-8": (b"a\xff.example", 443, 2, Reason.MALFORMED_REQUEST),
}


@pytest.mark.parametrize(("host", "port", "number", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_or_fails_has_its_code(host: str | bytes, port: int, number: int, reason: Reason) -> None:
    names = {"private.example": ["10.0.0.1"], "me.example": ["127.0.0.1"], "closed.example": ["127.0.0.9"]}
    async with relay_server([], names, mode="socks5") as server, talk(server) as client:
        server.gate.use(
            RuleSet.build(
                [
                    rule("a.example", (443, "https")),
                    rule("10.0.0.1", (443, "https")),
                    rule("me.example", (server.port, "tcp")),
                    *(rule(f"{name}.example", (443, "tcp")) for name in ("private", "nowhere", "closed")),
                ]
            )
        )
        await client.send(GREETING + wanted(host, port or server.port) + b"early bytes")
        assert await client.rest() == CHOSEN + code(number)
        (exchange,) = await server.finished()
        assert exchange.reason is reason
        assert len(server.seen.decisions) == 1
        assert server.seen.errors == []


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code_that_says_failure(reason: Reason) -> None:
    assert REPLY_FOR.get(reason, 2) in (1, 2, 3, 4, 5, 6)


MALFORMED: dict[str, tuple[bytes, bytes]] = {
    "SOCKS4": (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", b""),
    "TLS": (client_hello("a.example"), b""),
    "no method": (b"\x05\x00", b"\x05\xff"),
    "a password wanted": (b"\x05\x01\x02", b"\x05\xff"),
    "GSSAPI and a password": (b"\x05\x02\x01\x02", b"\x05\xff"),
    "a request of version 4": (GREETING + wanted("a.example", 443, version=4), CHOSEN + code(1)),
    "a reserved byte that is set": (GREETING + wanted("a.example", 443, reserved=1), CHOSEN + code(1)),
    "BIND": (GREETING + wanted("a.example", 443, command=2), CHOSEN + code(7)),
    "UDP ASSOCIATE": (GREETING + wanted("a.example", 443, command=3), CHOSEN + code(7)),
    "a command that does not exist": (GREETING + wanted("a.example", 443, command=9), CHOSEN + code(7)),
    "a type of address that does not exist": (GREETING + b"\x05\x01\x00\x02\x00\x00", CHOSEN + code(8)),
    "port 0": (GREETING + wanted("a.example", 0), CHOSEN + code(1)),
    "an end within the greeting": (b"\x05", b""),
    "an end within the methods": (b"\x05\x05\x00", b""),
    "an end within the request": (GREETING + b"\x05\x01\x00\x03\x09a.exa", CHOSEN),
    "an end before the port": (GREETING + wanted("a.example", 443)[:-1], CHOSEN),
}


@pytest.mark.parametrize(("data", "answer"), MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_handshake(data: bytes, answer: bytes) -> None:
    async with relay_server([rule("*", (443, "tcp"))], mode="socks5") as server, talk(server) as client:
        await client.send(data)
        client.half_close()
        assert await client.rest_or_reset() == answer
        assert_one_refusal(server, await server.finished())


def assert_one_refusal(server: RelayServer, exchanges: list[Exchange]) -> None:
    (exchange,) = exchanges
    assert exchange.reason is Reason.MALFORMED_REQUEST
    assert server.names.asked == []
    assert server.seen.errors == []


@pytest.mark.usefixtures("steady")
async def test_a_handshake_that_takes_too_long() -> None:
    limits = Limits(header_timeout=0.1)
    async with relay_server([], mode="socks5", limits=limits) as server, talk(server) as client:
        await client.send(GREETING)
        assert await client.rest() == CHOSEN
        assert (await server.finished())[0].reason is Reason.CLIENT_TIMEOUT


async def test_one_method_among_many() -> None:
    async with conversation(echo, "tcp", mode="socks5") as (client, _, there):
        await client.send(b"\x05\x03\x01\x02\x00" + wanted("a.example", there.port))
        assert await client.exactly(12) == CHOSEN + code(0)


async def test_an_ipv6_destination() -> None:
    from ipaddress import ip_network

    async with (
        origin(echo, address="::1") as there,
        relay_server(
            [rule("::1", (there.port, "tcp"))], mode="socks5", public_ranges=(ip_network("::1/128"),)
        ) as server,
        talk(server) as client,
    ):
        await client.send(GREETING + wanted("::1", there.port) + b"hello")
        assert await client.exactly(17) == CHOSEN + code(0) + b"hello"
