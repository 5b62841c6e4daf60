"""TLS to a destination: verified, by its name, and nothing of the request before that."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from OpenSSL import SSL

from egress_gateway.gate.settings import Limits, UpstreamTls
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.connection import Connection
from egress_gateway.relay.upstream_tls import TlsContexts, describe
from support.ca import Certificate, SessionCa
from support.relay_server import (
    Origin,
    Peer,
    RelayServer,
    Script,
    Talk,
    answers,
    conversation,
    origin,
    relay_server,
    request,
    rule,
    talk,
)


@asynccontextmanager
async def originating(
    ca: SessionCa, script: Script = answers, certificate: Certificate | None = None, **server: object
) -> AsyncIterator[tuple[Talk, RelayServer, Origin]]:
    """A client that speaks plain HTTP, and an origin that speaks TLS as `a.example`."""
    context = (certificate or ca.issue("a.example")).server_context()
    async with conversation(script, "https", tls=context, ca_file=str(ca.pem_path), **server) as three:
        yield three


async def test_plain_http_leaves_as_verified_tls(ca: SessionCa) -> None:
    async with originating(ca) as (client, server, there):
        reply = await client.ask(request(there, "/x"))
        assert (reply.status, reply.body) == (200, b"GET /x HTTP/1.1")
        assert b"\r\nHost: a.example:%d\r\n" % there.port in there.received
        tls = there.peers[0].writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
        (exchange,) = await server.finished()
        assert (exchange.tls_mode, exchange.failure) == ("originate", None)


async def test_the_name_is_sent_as_sni(ca: SessionCa) -> None:
    context, names = ca.issue("a.example").server_context(), []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with conversation(answers, "https", tls=context, ca_file=str(ca.pem_path)) as (client, _, there):
        assert (await client.ask(request(there, host="A.Example."))).status == 200
    assert names == ["a.example"]


async def test_a_connection_is_used_again(ca: SessionCa) -> None:
    async with originating(ca) as (client, server, there):
        for number in range(3):
            assert (await client.ask(request(there, f"/{number}"))).status == 200
        assert len(there.peers) == 1
        assert server.names.asked == ["a.example"]


async def test_an_https_uri_is_originated_as_well(ca: SessionCa) -> None:
    async with originating(ca) as (client, _, there):
        data = request(there).replace(b"GET http://", b"GET https://")
        assert (await client.ask(data)).status == 200


async def test_large_bodies_both_ways(ca: SessionCa) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(await peer.exactly(3 << 20))

    async with originating(ca, script) as (client, _, there):
        body = bytes(range(256)) * (3 << 12)
        await client.send(request(there, "/", f"Content-Length: {len(body)}", method="POST"))
        sending = asyncio.create_task(client.send(body))
        assert (await client.reply()).body == body
        await sending


async def test_an_address_is_verified_as_an_address(ca: SessionCa) -> None:
    context, names = ca.issue("127.0.0.1").server_context(), []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with (
        origin(answers, tls=context) as there,
        relay_server([rule("127.0.0.1", (there.port, "https"))], ca_file=str(ca.pem_path)) as server,
        talk(server) as client,
    ):
        assert (await client.ask(request(there, host="127.0.0.1"))).status == 200
    assert names == [None], "RFC 6066: an address is no server name"


CERTIFICATES: dict[str, tuple[Callable[[SessionCa], Certificate], str]] = {
    "for another name": (lambda ca: ca.issue("b.example"), "Hostname mismatch"),
    "for the parent": (lambda ca: ca.issue("example"), "Hostname mismatch"),
    "for an address": (lambda ca: ca.issue("127.0.0.1"), "Hostname mismatch"),
    "for a wildcard of two labels": (lambda ca: ca.issue("*.a.example"), "Hostname mismatch"),
    "that has expired": (lambda ca: ca.expired("a.example"), "certificate has expired"),
    "of an authority nobody knows": (lambda ca: ca.untrusted("a.example"), "unable to get local issuer certificate"),
    "signed by itself": (lambda ca: ca.self_signed("a.example"), "self-signed certificate"),
}


@pytest.mark.parametrize(("issue", "detail"), CERTIFICATES.values(), ids=CERTIFICATES)
async def test_a_certificate_that_is_not_accepted(
    ca: SessionCa, issue: Callable[[SessionCa], Certificate], detail: str
) -> None:
    async with originating(ca, certificate=issue(ca)) as (client, server, there):
        reply = await client.ask(request(there, "/", "Cookie: secret"))
        assert (reply.status, reply.reason) == (502, "upstream_tls_failed")
        assert detail.lower() in reply.body.decode().lower()
        (exchange,) = await server.finished()
        assert exchange.failure is Reason.UPSTREAM_TLS_FAILED
        assert exchange.detail.startswith("certificate not accepted: ")
        assert server.seen.failures == [Reason.UPSTREAM_TLS_FAILED]
        assert b"secret" not in there.received
        assert (await client.ask(request(there, host="evil.example"))).status == 403, "the connection goes on"


def saying(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.send(data)
        await peer.rest()

    return script


NOT_TLS = {
    "plain HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "rubbish": b"\x16\x03\x01\x00\x05hello",
    "SSH": b"SSH-2.0-OpenSSH\r\n",
}


@pytest.mark.parametrize("data", NOT_TLS.values(), ids=NOT_TLS)
@pytest.mark.parametrize("after_hello", [True, False], ids=["after the hello", "at once"])
async def test_an_origin_that_does_not_speak_tls_gets_nothing_in_the_clear(
    ca: SessionCa, data: bytes, after_hello: bool
) -> None:
    async def script(peer: Peer) -> None:
        if after_hello:
            await peer.exactly(5)
        await peer.send(data)
        await peer.rest()

    async with conversation(script, "https", ca_file=str(ca.pem_path)) as (client, _, there):
        reply = await client.ask(request(there, "/", "Cookie: secret"))
        assert (reply.status, reply.reason) == (502, "upstream_tls_failed")
    assert b"secret" not in there.received
    assert b"HTTP/1.1" not in there.received


async def test_an_origin_that_leaves_within_the_handshake(ca: SessionCa) -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(5)

    async with conversation(script, "https", ca_file=str(ca.pem_path)) as (client, _, there):
        assert (await client.ask(request(there))).reason == "upstream_tls_failed"


async def test_an_origin_that_leaves_at_once(ca: SessionCa) -> None:
    async def script(_: Peer) -> None:
        return

    async with conversation(script, "https", ca_file=str(ca.pem_path)) as (client, _, there):
        assert (await client.ask(request(there))).reason == "upstream_tls_failed"


@pytest.mark.usefixtures("steady")
async def test_a_handshake_that_takes_too_long(ca: SessionCa) -> None:
    async def script(peer: Peer) -> None:
        await peer.rest(quiet=30)

    limits = Limits(connect_timeout=0.2)
    async with conversation(script, "https", ca_file=str(ca.pem_path), limits=limits) as (client, server, there):
        assert (await client.ask(request(there))).reason == "upstream_tls_failed"
        assert (await server.finished())[0].detail == "the TLS handshake took too long"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_oldest_version_is_the_one_that_was_set(ca: SessionCa, version: ssl.TLSVersion) -> None:
    context = ca.issue("a.example").server_context()
    context.maximum_version = version
    async with (
        origin(answers, tls=context) as there,
        relay_server([rule("a.example", (there.port, "https"))], {"a.example": ["127.0.0.1"]}) as server,
    ):
        settings = UpstreamTls(ca_file=str(ca.pem_path), min_version="TLS1_3")
        made = TlsContexts(settings).context_for(Hostname("a.example"))
        assert made.minimum_version is ssl.TLSVersion.TLSv1_3
        with socket.create_connection(("127.0.0.1", there.port)) as sock:
            wrapped = await asyncio.to_thread(attempt, made, sock)
        assert wrapped is (version is ssl.TLSVersion.TLSv1_3)
        assert server.seen.errors == []


def attempt(context: ssl.SSLContext, sock: socket.socket) -> bool:
    try:
        context.wrap_socket(sock, server_hostname="a.example").close()
    except ssl.SSLError:
        return False
    return True


async def test_what_comes_before_tls_is_never_read_as_if_it_came_through_tls(ca: SessionCa) -> None:
    """Somebody on the path puts an answer in front of the true destination's handshake."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    async with origin(answers, tls=ca.issue("a.example").server_context()) as true:

        async def on_the_path(peer: Peer) -> None:
            await peer.send(forged)
            reader, writer = await asyncio.open_connection("127.0.0.1", true.port)
            try:
                await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))
            finally:
                writer.close()

        async with conversation(on_the_path, "https", ca_file=str(ca.pem_path)) as (client, _, there):
            for _ in range(20):
                reply = await client.ask(request(there, "/", "Cookie: secret"))
                assert b"forged" not in reply.body
                # Depending on what the loop sees first, it fails before the handshake or within it.
                assert (reply.status, reply.reason) == (502, "upstream_tls_failed")
        assert b"secret" not in true.received


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("framing", ["", "Content-Length: 100\r\n"], ids=["until close", "by length"])
async def test_a_body_that_is_cut_off_under_tls_is_not_a_whole_one(ca: SessionCa, framing: str) -> None:
    """FIN without close_notify can come from anybody on the path."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(f"HTTP/1.1 200 OK\r\n{framing}\r\nhello".encode())
        await asyncio.sleep(0.02)
        peer.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.5)

    async with originating(ca, script) as (client, server, there):
        await client.send(request(there))
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.reply()
        assert (await server.finished())[0].failure is Reason.UPSTREAM_CLOSED


async def test_a_body_until_close_under_tls_that_ends_in_peace(ca: SessionCa) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    async with originating(ca, script) as (client, server, there):
        assert (await client.ask(request(there))).body == b"hello"
        assert (await server.finished())[0].failure is None


# --- contexts ---


async def test_a_destination_that_wants_to_negotiate_anew_and_then_says_no_more_holds_up_no_write(
    ca: SessionCa, tmp_path: Path
) -> None:
    chain, key = ca.issue("a.example").write(tmp_path)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(str(chain))
    context.use_privatekey_file(str(key))
    ours, its = socket.socketpair()
    there = SSL.Connection(context, its)
    there.set_accept_state()
    here = TlsContexts(UpstreamTls(ca_file=str(ca.pem_path))).wrap(Connection(ours), Hostname("a.example"))
    with its, closing(here):
        await asyncio.gather(here.handshake(), asyncio.to_thread(there.do_handshake))
        there.renegotiate()
        there.do_handshake()  # says only that it wants to
        there.send(b"x")
        assert await here.read() == b"x"
        here.write(b"y")
        assert here.unsent == 0
        # Now it is told that there is none.
        with pytest.raises(SSL.Error):
            there.recv(1)


def test_every_context_verifies_and_nothing_turns_that_off(ca: SessionCa, tmp_path: Path) -> None:
    own = ca.issue("client")
    (tmp_path / "a.example.pem").write_bytes(own.chain_pem + own.key_pem)
    contexts = TlsContexts(UpstreamTls(ca_file=str(ca.pem_path), client_certificates=str(tmp_path)))
    for host in (Hostname("a.example"), Hostname("b.example"), ip_address("127.0.0.1")):
        context = contexts.context_for(host)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert contexts.context_for(Hostname("b.example")) is contexts.context_for(Hostname("c.example"))
    assert contexts.context_for(Hostname("a.example")) is not contexts.context_for(Hostname("b.example"))
    assert contexts.context_for(Hostname("a.example")) is contexts.context_for(Hostname("a.example"))


@pytest.mark.parametrize("name", ["SSL3", "TLS1", "TLS1_1", "UNBOUNDED", "anything"])
def test_versions_before_1_2_are_not_offered_whatever_is_set(name: str) -> None:
    context = TlsContexts(UpstreamTls(min_version=name)).context_for(Hostname("a.example"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "settings",
    [
        UpstreamTls(ca_file="/nonexistent/ca.pem"),
        UpstreamTls(ca_file=__file__),
        UpstreamTls(ciphers="no such cipher"),
        UpstreamTls(client_certificates=__file__),
    ],
    ids=["no such file", "a file without certificates", "an unknown cipher", "a client certificate that is none"],
)
def test_what_cannot_be_used_is_found_when_the_gateway_starts(settings: UpstreamTls) -> None:
    with pytest.raises(OSError, match=r".+"):
        TlsContexts(settings)


async def test_a_client_certificate_is_shown_where_there_is_one(ca: SessionCa, tmp_path: Path) -> None:
    own = ca.issue("client.example")
    (tmp_path / "a.example.pem").write_bytes(own.chain_pem + own.key_pem)
    context = ca.issue("a.example", "b.example").server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.pem_path)
    contexts = TlsContexts(UpstreamTls(ca_file=str(ca.pem_path), client_certificates=str(tmp_path)))
    async with origin(answers, tls=context) as there:
        for host, expected in (("a.example", True), ("b.example", False)):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", there.port, ssl=contexts.context_for(Hostname(host)), server_hostname=host
            )
            answered = False
            try:
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                answered = (await reader.read(100)).startswith(b"HTTP/1.1 200")
            except (OSError, ssl.SSLError):
                pass
            finally:
                writer.close()
            assert answered is expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "the TLS handshake took too long"),
        (ConnectionResetError(104, "Connection reset by peer"), "TLS failed: [Errno 104] Connection reset by peer"),
        (ssl.SSLError(1, "x"), "TLS failed: "),
        (ValueError("server_hostname cannot be an empty string"), "TLS failed: server_hostname cannot"),
        (ConnectionAbortedError(), "TLS failed: ConnectionAbortedError"),
    ],
)
def test_a_failure_is_told_in_one_line(error: Exception, text: str) -> None:
    assert describe(error).startswith(text)
    assert "\n" not in describe(error)
