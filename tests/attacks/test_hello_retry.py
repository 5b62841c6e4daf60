"""A second ClientHello (HelloRetryRequest) must name the host that the first one was judged by."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Gateway
from support.http import client_hello, connect_tunnel, request_over, tls_client
from support.origin import Origins
from support.origin.listener import Connection, Listener

ADDRESS = "203.0.113.40"
RULE = """
kind: EgressRule
metadata: {name: allowed}
spec: {destination: {service: allowed.example}, ports: [{port: 443, protocol: https}]}
"""


class PickyOrigin(Listener):
    """Speaks TLS 1.3 over P-256 only, which no client guesses, so that it has to ask each for a second hello."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(address, port)
        self.names: list[str | None] = []
        context.set_ecdh_curve("prime256v1")
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self._picky = context

    def serve(self, connection: Connection) -> None:
        """Never ends a handshake: the client has no key, and the names have been seen by then."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._picky.wrap_bio(incoming, outgoing, server_side=True)
        while data := connection.recv():
            incoming.write(data)
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            if answer := outgoing.read():
                connection.sock.sendall(answer)


@pytest.fixture
def picky(origin: Origins, ca: SessionCa, dns: DnsServer) -> PickyOrigin:
    dns.set("allowed.example", [ADDRESS])
    context = ca.issue("allowed.example", "denied.example").server_context()
    return origin.start(PickyOrigin(ADDRESS, 443, context))


@pytest.fixture
def tunnel(shared_gateway: Callable[..., Gateway], data_path: str, picky: PickyOrigin) -> Iterator[Any]:
    status, sock = connect_tunnel(shared_gateway(RULE, data_path=data_path), "allowed.example:443")
    assert status == 200
    with sock:
        yield sock


def hello(name: str) -> bytes:
    return client_hello(name, versions=(0x0304,))


def test_a_handshake_with_a_second_hello_passes(
    shared_gateway: Callable[..., Gateway], data_path: str, origin: Origins, dns: DnsServer, ca: SessionCa
) -> None:
    dns.set("allowed.example", [ADDRESS])
    server = origin.https(ADDRESS, "allowed.example")
    assert server._context is not None
    server._context.set_ecdh_curve("prime256v1")
    status, sock = connect_tunnel(shared_gateway(RULE, data_path=data_path), "allowed.example:443")
    assert status == 200
    with tls_client(sock, "allowed.example", ca.pem_path) as tls:
        assert request_over(tls, "GET", "/echo", {"Host": "allowed.example"}).status == 200
        assert tls.version() == "TLSv1.3"
    assert len(server.connections) == 1


UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"


@pytest.mark.parametrize("way", ["when it is asked for", "at once", "a byte at a time"])
def test_a_second_hello_for_another_host_is_refused(tunnel: Any, picky: PickyOrigin, way: str) -> None:
    first, second = hello("allowed.example"), hello("denied.example")
    tunnel.sendall(first + second if way == "at once" else first)
    received = tunnel.recv(65536)
    assert received[0] == 22, "the destination asks for a second hello"
    if way == "when it is asked for":
        tunnel.sendall(second)
    elif way == "a byte at a time":
        for position in range(len(second)):
            tunnel.sendall(second[position : position + 1])
    while piece := tunnel.recv(65536):
        received += piece
    assert received.endswith(UNRECOGNIZED_NAME)
    assert picky.names == ["allowed.example"]


def test_the_log_names_the_contradiction(
    shared_gateway: Callable[..., Gateway], data_path: str, picky: PickyOrigin
) -> None:
    gw = shared_gateway(RULE, data_path=data_path)
    _, sock = connect_tunnel(gw, "allowed.example:443")
    with sock:
        sock.sendall(hello("allowed.example") + hello("denied.example"))
        while sock.recv(65536):
            pass
    gw.wait_for_log(verdict="deny", reason="sni_mismatch")
    assert gw.metric("egress_identity_mismatches_total", claim="sni") >= 1
