"""What a tunnel carries is judged by its first bytes: SNI, plain HTTP, or nothing that may pass."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_network

import pytest

from egress_gateway.gate.settings import Limits
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import EgressRule, ExactName, Port, Protocol, TlsMode
from egress_gateway.policy.ruleset import RuleSet
from support.ca import SessionCa
from support.client_hello import SSLV2_HELLO, client_hello
from support.relay_server import (
    Origin,
    Peer,
    RelayServer,
    answers,
    conversation,
    echo,
    origin,
    relay_server,
    rule,
    talk,
)
from support.waiting import until

ACCESS_DENIED = b"\x15\x03\x01\x00\x02\x02\x31"
UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
INTERNAL_ERROR = b"\x15\x03\x01\x00\x02\x02\x50"


def authority(there: Origin) -> str:
    return f"a.example:{there.port}"


def nothing_left(server: RelayServer, there: Origin) -> None:
    assert server.names.asked == []
    assert there.peers == []


# --- TLS that passes ---


async def test_tls_to_the_name_of_the_tunnel_passes_undecrypted(ca: SessionCa) -> None:
    async with conversation(answers, "https", tls=ca.issue("a.example").server_context()) as (client, server, there):
        await client.tunnel(authority(there))
        await client.start_tls(ca.client_context(), "a.example")
        reply = await client.ask(b"GET /x HTTP/1.1\r\nHost: anything\r\n\r\n")
        assert reply.body == b"GET /x HTTP/1.1"
        assert b"Via" not in there.received
        client.close()
        (exchange,) = await server.finished()
        assert (exchange.protocol, exchange.tls_mode) == ("TLS", "passthrough")
        assert (exchange.requested_server_name, exchange.ech) == ("a.example", False)
        assert exchange.bytes_received > 100
    assert server.names.asked == ["a.example"]


PASSES = {
    "as it is": client_hello("a.example"),
    "in capitals, with a dot": client_hello("A.EXAMPLE."),
    "in records of one byte": client_hello("a.example", record_size=1),
    "with post-quantum key shares and GREASE": client_hello("a.example", post_quantum=True, grease=True),
    "with encrypted_client_hello": client_hello("a.example", ech=True),
    "with what comes after it": client_hello("a.example") + b"\x17\x03\x03\x00\x05early",
}


@pytest.mark.parametrize("hello", PASSES.values(), ids=PASSES)
async def test_a_hello_arrives_exactly_as_it_was_sent(hello: bytes) -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(hello)
        assert await client.exactly(len(hello)) == hello
        assert server.names.asked == ["a.example"]
        assert len(server.seen.decisions) == 1


async def test_a_hello_that_arrives_one_byte_at_a_time() -> None:
    hello = client_hello("a.example", record_size=50)
    async with conversation(echo, "https") as (client, _, there):
        await client.tunnel(authority(there))
        await client.bytewise(hello)
        assert await client.exactly(len(hello)) == hello


# --- TLS that does not ---

REFUSED_HELLOS: dict[str, tuple[bytes, bytes, Reason]] = {
    "another host": (client_hello("evil.example"), UNRECOGNIZED_NAME, Reason.SNI_MISMATCH),
    "another host that is allowed": (client_hello("b.example"), UNRECOGNIZED_NAME, Reason.SNI_MISMATCH),
    "a host below": (client_hello("x.a.example"), UNRECOGNIZED_NAME, Reason.SNI_MISMATCH),
    "no name": (client_hello(no_sni=True), UNRECOGNIZED_NAME, Reason.SNI_MISSING),
    "an address": (client_hello("127.0.0.1"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "two names": (client_hello("a.example", two_names="evil.example"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "two extensions": (client_hello("a.example", duplicate="evil.example"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "two equal extensions": (client_hello("a.example", duplicate="a.example"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "a NUL": (client_hello(b"a.example\0.evil.example"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "a line feed": (client_hello(b"a.example\n"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "a port": (client_hello("a.example:443"), UNRECOGNIZED_NAME, Reason.SNI_MALFORMED),
    "bytes after the hello": (client_hello("a.example", trailing=b"x"), ACCESS_DENIED, Reason.MALFORMED_HELLO),
    "another handshake message": (
        client_hello("a.example", handshake_type=2), ACCESS_DENIED, Reason.MALFORMED_HELLO,
    ),
    "a second record that is none": (
        client_hello("a.example", record_size=50)[:55] + b"\x17\x03\x03\x00\x01x",
        ACCESS_DENIED,
        Reason.MALFORMED_HELLO,
    ),
    "a hello that says it is too large": (
        client_hello("a.example", handshake_length=100_000), ACCESS_DENIED, Reason.HELLO_TOO_LARGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("hello", "alert", "reason"), REFUSED_HELLOS.values(), ids=REFUSED_HELLOS)
async def test_a_hello_that_is_refused_gets_its_alert_and_nothing_leaves(
    hello: bytes, alert: bytes, reason: Reason
) -> None:
    async with conversation(echo, "https") as (client, server, there):
        server.gate.use(
            RuleSet.build([rule("a.example", (there.port, "https")), rule("b.example", (there.port, "https"))])
        )
        await client.tunnel(authority(there))
        await client.send(hello)
        assert await client.rest() == alert
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.verdict.allowed) == (reason, False)
        assert [verdict.reason for verdict in server.seen.decisions] == [reason]
        nothing_left(server, there)


async def test_a_hello_that_never_ends_is_refused_at_the_limit() -> None:
    async with conversation(echo, "https", limits=Limits(hello_bytes=4096)) as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(client_hello("a.example", padding=3000, record_size=1))
        assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.HELLO_TOO_LARGE
        nothing_left(server, there)


@pytest.mark.usefixtures("steady")
async def test_a_hello_that_takes_too_long_is_refused() -> None:
    hello = client_hello("a.example")
    async with conversation(echo, "https", limits=Limits(hello_timeout=0.2)) as (client, server, there):
        await client.tunnel(authority(there))
        for start in range(8):
            client.writer.write(hello[start : start + 1])
            await asyncio.sleep(0.02)
        assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.CLIENT_TIMEOUT
        nothing_left(server, there)


async def test_a_client_that_leaves_within_its_hello() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(client_hello("a.example")[:50])
        client.half_close()
        assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.MALFORMED_HELLO
        nothing_left(server, there)


@pytest.mark.parametrize("ech", ["deny", "allow"])
@pytest.mark.parametrize(
    "hello", [client_hello("a.example", ech=True), client_hello("a.example")], ids=["ech", "plain"]
)
async def test_encrypted_client_hello_is_refused_where_it_is_denied(ech: str, hello: bytes) -> None:
    async with conversation(echo, "https", ech=ech) as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(hello)
        if ech == "deny" and hello != client_hello("a.example"):
            assert await client.rest() == ACCESS_DENIED
            assert (await server.finished())[0].reason is Reason.ECH_DENIED
            assert len(server.seen.decisions) == 1
            nothing_left(server, there)
        else:
            assert await client.exactly(len(hello)) == hello


async def test_the_inner_name_of_an_encrypted_hello_is_not_judged_and_the_outer_is() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(client_hello("evil.example", ech=True))
        assert await client.rest() == UNRECOGNIZED_NAME
        assert (await server.finished())[0].ech
        nothing_left(server, there)


MODES: dict[str, tuple[str, TlsMode | None, bytes]] = {
    "under an http rule": ("http", None, ACCESS_DENIED),
    "under a rule that only originates": ("https", TlsMode.ORIGINATE, ACCESS_DENIED),
}


@pytest.mark.parametrize(("protocol", "mode", "alert"), MODES.values(), ids=MODES)
async def test_tls_where_the_rule_does_not_admit_it(protocol: str, mode: TlsMode | None, alert: bytes) -> None:
    async with conversation(echo, "https") as (client, server, there):
        name = rule("a.example", (1, "tcp")).destinations
        port = Port(there.port, Protocol(protocol), None, mode)
        server.gate.use(RuleSet.build([EgressRule("default", "a", name, (port,))]))
        await client.tunnel(authority(there))
        await client.send(client_hello("a.example"))
        assert await client.rest() == alert
        (exchange,) = await server.finished()
        assert exchange.reason is Reason.PROTOCOL_NOT_ALLOWED
        assert exchange.hint
        nothing_left(server, there)


FAILURES: dict[str, tuple[list[str], bytes, Reason]] = {
    "a name that does not resolve": ([], INTERNAL_ERROR, Reason.NAME_NOT_RESOLVED),
    "nobody listens": (["127.0.0.9"], INTERNAL_ERROR, Reason.CONNECT_FAILED),
    "an address that may not be reached": (["10.0.0.1"], ACCESS_DENIED, Reason.ADDRESS_NOT_ALLOWED),
}


@pytest.mark.parametrize(("addresses", "alert", "reason"), FAILURES.values(), ids=FAILURES)
async def test_tls_to_a_destination_that_cannot_be_reached(addresses: list[str], alert: bytes, reason: Reason) -> None:
    async with conversation(echo, "https") as (client, server, there):
        server.names.names.clear()
        if addresses:
            server.names.names["a.example"] = addresses
        await client.tunnel(authority(there))
        await client.send(client_hello("a.example"))
        assert await client.rest() == alert
        assert (await server.finished())[0].reason is reason
        assert there.peers == []


async def test_the_target_port_is_the_one_dialled(ca: SessionCa) -> None:
    async with conversation(answers, "https", tls=ca.issue("a.example").server_context()) as (client, server, there):
        made = EgressRule("default", "a", (ExactName(Hostname("a.example")),), (Port(443, Protocol.HTTPS, there.port),))
        server.gate.use(RuleSet.build([made]))
        await client.tunnel("a.example:443")
        await client.start_tls(ca.client_context(), "a.example")
        assert (await client.ask(b"GET / HTTP/1.1\r\n\r\n")).status == 200


# --- neither TLS nor HTTP ---

OTHER = {
    "SSH": b"SSH-2.0-OpenSSH\r\n",
    "an empty line and a request": b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "a record of version 3.4": client_hello("a.example", record_version=0x0304),
    "a record of version 3.127": client_hello("a.example", record_version=0x037F),
    "an SSLv2 hello": SSLV2_HELLO,
    "an alert": b"\x15\x03\x01\x00\x02\x01\x00",
    "SOCKS5 inside": b"\x05\x01\x00",
    "a NUL": b"\0",
    "a very long word": b"A" * 10_000,
}


@pytest.mark.parametrize("data", OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("bytewise", [True, False], ids=["bytewise", "at once"])
@pytest.mark.usefixtures("long_linger")
async def test_what_is_neither_is_refused_and_never_raw_bytes(data: bytes, bytewise: bool) -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        await (client.bytewise(data[:40]) if bytewise else client.send(data))
        assert await client.rest() == b""
        client.half_close()
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.protocol) == (Reason.PROTOCOL_UNKNOWN, "TCP")
        nothing_left(server, there)


@pytest.mark.usefixtures("long_linger")
async def test_http_2_without_tls_is_refused_with_its_own_reason() -> None:
    async with conversation(echo, "http") as (client, server, there):
        await client.tunnel(authority(there))
        await client.bytewise(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert await client.rest() == b""
        client.half_close()
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.protocol) == (Reason.HTTP2_NOT_SUPPORTED, "HTTP/2")
        nothing_left(server, there)


async def test_a_client_that_waits_for_the_server_to_speak_is_refused() -> None:
    async with conversation(echo, "https", limits=Limits(hello_timeout=0.1)) as (client, server, there):
        await client.tunnel(authority(there))
        assert await client.rest() == b""
        assert (await server.finished())[0].reason is Reason.CLIENT_TIMEOUT
        nothing_left(server, there)


async def test_a_client_that_leaves_without_a_word() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        client.half_close()
        assert await client.rest() == b""
        assert server.seen.exchanges == []
        nothing_left(server, there)


async def test_a_client_that_leaves_within_its_first_word() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        await client.send(b"GE")
        client.half_close()
        assert await client.rest() == b""
        assert (await server.finished())[0].reason is Reason.PROTOCOL_UNKNOWN
        nothing_left(server, there)


# --- plain HTTP in a tunnel ---


async def test_plain_http_in_a_tunnel_is_relayed_request_by_request() -> None:
    async with conversation(answers) as (client, server, there):
        await client.tunnel(authority(there))
        for path in ("/1", "/2"):
            text = f"GET {path} HTTP/1.1\r\nHost: a.example:{there.port}\r\n\r\n"
            assert (await client.ask(text.encode())).body == f"GET {path} HTTP/1.1".encode()
        assert len(there.peers) == 1
        assert there.received.count(b"Via: 1.1 egress-gateway\r\n") == 2
        assert len(await server.finished(2)) == 2


async def test_plain_http_to_a_tls_port_leaves_as_tls(ca: SessionCa) -> None:
    context = ca.issue("a.example").server_context()
    async with conversation(answers, "https", tls=context, ca_file=str(ca.pem_path)) as (client, _, there):
        await client.tunnel(authority(there))
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).status == 200
        assert there.peers[0].writer.get_extra_info("ssl_object") is not None


INSIDE: dict[str, tuple[bytes, int, str]] = {
    "another host": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "host_mismatch"),
    "an address": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421, "host_mismatch"),
    "a URI of another host": (
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "connection_changed_host",
    ),
    "a URI of another port": (
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 421, "connection_changed_host",
    ),
    "another port": (b"GET / HTTP/1.1\r\nHost: a.example:1\r\n\r\n", 400, "malformed_request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: evil.example\r\n\r\n", 400, "malformed_request"),
    "another CONNECT": (
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 400, "malformed_request",
    ),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1\r\nHost: a.example\r\n\r\n", 403, "upgrade_not_allowed"),
    "h2c": (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 403, "upgrade_not_allowed",
    ),
    "a length and chunked": (
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400, "malformed_request",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status", "reason"), INSIDE.values(), ids=INSIDE)
async def test_a_request_inside_a_tunnel_that_is_for_somebody_else(data: bytes, status: int, reason: str) -> None:
    async with conversation(answers) as (client, server, there):
        await client.tunnel(authority(there))
        reply = await client.ask(data)
        assert (reply.status, reply.reason) == (status, reason)
        nothing_left(server, there)


async def test_after_an_allowed_request_in_a_tunnel_another_host_is_refused() -> None:
    async with conversation(answers) as (client, server, there):
        await client.tunnel(authority(there))
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).status == 200
        reply = await client.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (reply.status, reply.reason) == (421, "host_mismatch")
        assert b"evil" not in there.received
    assert server.seen.mismatches == ["host"]


async def test_after_a_request_in_a_tunnel_no_tls_can_follow() -> None:
    async with conversation(answers, "http") as (client, _, there):
        await client.tunnel(authority(there))
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")).status == 200
        await client.send(client_hello("evil.example") + b"\r\n\r\n")
        assert (await client.reply()).status == 400
        assert await client.rest() == b""
        assert b"evil" not in there.received


async def test_rules_that_change_after_connect_are_the_ones_that_count() -> None:
    async with conversation(echo, "https") as (client, server, there):
        await client.tunnel(authority(there))
        server.gate.use(RuleSet.empty())
        await client.send(client_hello("a.example"))
        assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.NO_RULE
        nothing_left(server, there)


async def test_the_gateway_itself_is_not_a_destination_of_a_tunnel() -> None:
    async with relay_server([], {"me.example": ["127.0.0.1"]}) as server:
        server.gate.use(RuleSet.build([rule("me.example", (server.port, "https"))]))
        async with talk(server) as client:
            await client.tunnel(f"me.example:{server.port}")
            await client.send(client_hello("me.example"))
            assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.OWN_ADDRESS
        assert len(server.seen.exchanges) == 1
        assert server.seen.errors == []


async def test_a_relay_that_is_not_public_is_not_reached_by_its_name() -> None:
    """Without the public ranges that these tests add, loopback is refused before any port is looked at."""
    async with (
        origin(echo) as there,
        relay_server(
            [rule("a.example", (there.port, "https"))],
            {"a.example": ["127.0.0.1"]},
            public_ranges=(ip_network("203.0.113.0/24"),),
        ) as server,
        talk(server) as client,
    ):
        await client.tunnel(authority(there))
        await client.send(client_hello("a.example"))
        assert await client.rest() == ACCESS_DENIED
        assert (await server.finished())[0].reason is Reason.ADDRESS_NOT_ALLOWED
        assert there.peers == []


async def test_a_large_tls_transfer_both_ways(ca: SessionCa) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(await peer.exactly(2 << 20))
        await peer.rest()

    async with conversation(script, "https", tls=ca.issue("a.example").server_context()) as (client, _, there):
        await client.tunnel(authority(there))
        await client.start_tls(ca.client_context(), "a.example")
        body = bytes(range(256)) * (2 << 12)
        sending = asyncio.create_task(client.send(body))
        assert await client.exactly(len(body)) == body
        await sending


async def test_a_certificate_is_the_clients_business_in_a_tunnel(ca: SessionCa) -> None:
    context = ca.untrusted("a.example").server_context()
    async with conversation(answers, "https", tls=context) as (client, server, there):
        await client.tunnel(authority(there))
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.start_tls(ca.client_context(), "a.example")
        await until(lambda: server.seen.exchanges, "the tunnel is over")
