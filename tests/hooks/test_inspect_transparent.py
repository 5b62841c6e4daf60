"""Transparent mode on the inspect path: the address the client dialled is one more claim."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Gateway, read_reply
from support.http import client_hello, read_alert, request_over, tls_client
from support.lab import ACCESS_DENIED
from support.origin import SSH_GREETING, Origins
from support.sockets import bound, read_exactly
from support.waiting import PATIENCE, eventually
from support.wire import Wire

pytestmark = [pytest.mark.private_network, pytest.mark.root]

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"
CLIENT = "198.18.77.1"

BY_ADDRESS = """---
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: by-address}
spec: {destination: {services: ["203.0.113.30"]}, ports: [{port: 25, protocol: tcp}]}
"""


def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nft: {done.stderr.strip()}")


@pytest.fixture
def transparent(
    shared_gateway: Callable[..., Gateway], names: object, rules: str, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    options = getattr(request, "param", None)
    gateway = shared_gateway(rules + BY_ADDRESS, options, data_path="inspect", mode="transparent")
    _nft(
        f"""
        table ip inspected {{
            chain output {{
                type nat hook output priority -100;
                ip saddr {CLIENT} tcp dport {{ 25, 80, 443 }} redirect to :{gateway.port}
            }}
        }}
        """
    )
    yield gateway
    subprocess.run(["nft", "delete", "table", "ip", "inspected"], check=True)


decrypting = pytest.mark.parametrize("transparent", [{"egress_tls": "inspect"}], indirect=True)


def dial(address: str, port: int) -> socket.socket:
    """As a client that knows nothing of a gateway."""
    sock = bound(CLIENT, 0)
    sock.settimeout(PATIENCE)
    sock.connect((address, port))
    return sock


def test_http_to_a_true_address(transparent: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    with dial(WEB, 80) as sock:
        for _ in range(7):
            assert request_over(sock, "GET", "/true", {"Host": "www.example.com"}).status == 200
    entry = transparent.wait_for_log(path="/true")
    assert entry["original_destination"] == f"{WEB}:80"


def test_http_to_an_evil_address(transparent: Gateway, origin: Origins, wire: Wire) -> None:
    origin.http(SECOND)
    with dial(SECOND, 80) as sock:
        reply = request_over(sock, "GET", "/evil", {"Host": "www.example.com"})
        assert (reply.status, reply.header("x-egress-reason")) == (403, "address_mismatch")
    from_gateway = [packet for packet in wire.syns_to(SECOND) if packet.src != CLIENT]
    assert not from_gateway


def test_tls_to_an_evil_address(transparent: Gateway, origin: Origins, wire: Wire) -> None:
    origin.https(SECOND, "www.example.com")
    with dial(SECOND, 443) as sock:
        sock.sendall(client_hello("www.example.com"))
        assert read_alert(sock) == ACCESS_DENIED
    assert not [packet for packet in wire.syns_to(SECOND) if packet.src != CLIENT]
    transparent.wait_for_log(reason="address_mismatch", requested_server_name="www.example.com")


def test_tls_and_http_on_443(transparent: Gateway, origin: Origins, ca: SessionCa) -> None:
    server = origin.https(WEB, "www.example.com")
    with dial(WEB, 443) as sock, tls_client(sock, "www.example.com", ca.pem_path) as tls:
        assert request_over(tls, "GET", "/tls", {"Host": "www.example.com"}).status == 200
    with dial(WEB, 443) as sock:
        assert request_over(sock, "GET", "/originated", {"Host": "www.example.com"}).status == 200
    assert server.requests[1].connection.sni == "www.example.com"


def test_each_request_names_its_own_host(transparent: Gateway, origin: Origins, wire: Wire) -> None:
    server = origin.http(WEB)
    with dial(WEB, 80) as sock:
        assert request_over(sock, "GET", "/1", {"Host": "www.example.com"}).status == 200
        reply = request_over(sock, "GET", "/2", {"Host": "other.example.com"})
        assert (reply.status, reply.header("x-egress-reason")) == (403, "address_mismatch")
    assert len(server.requests) == 1
    assert not wire.syns_to(OTHER)


def test_bytes_to_an_address_with_a_rule(transparent: Gateway, origin: Origins) -> None:
    origin.tcp(SECOND, 25, greeting=SSH_GREETING)
    with dial(SECOND, 25) as sock:
        assert read_exactly(sock, len(SSH_GREETING)) == SSH_GREETING


def test_bytes_to_an_address_without_one(transparent: Gateway, origin: Origins, wire: Wire) -> None:
    origin.tcp(WEB, 80, greeting=SSH_GREETING)
    with dial(WEB, 80) as sock:
        sock.sendall(b"\x00\x01\x02\x03")
        assert read_reply(sock) == b""
    assert not [packet for packet in wire.syns_to(WEB) if packet.src != CLIENT]


@decrypting
def test_decrypted_requests_go_to_the_address_that_was_dialled(transparent: Gateway, origin: Origins) -> None:
    origin.https(WEB, "www.example.com")
    with dial(WEB, 443) as sock, tls_client(sock, "www.example.com", transparent.inspect_ca) as tls:
        assert request_over(tls, "GET", "/decrypted", {"Host": "www.example.com"}).status == 200
        assert request_over(tls, "GET", "/", {"Host": "other.example.com"}).status == 421


@decrypting
def test_a_new_connection_for_decrypted_requests_goes_to_the_same_address(
    transparent: Gateway, origin: Origins, names: DnsServer, wire: Wire
) -> None:
    def left_by_the_gateway() -> int:
        return sum("F" in packet.flags and packet.src != CLIENT for packet in wire.packets_to(WEB, 443))

    names.set("two.any.example.com", [OTHER, WEB])
    first, second = origin.https(OTHER, "two.any.example.com"), origin.https(WEB, "two.any.example.com")
    with dial(WEB, 443) as sock, tls_client(sock, "two.any.example.com", transparent.inspect_ca) as tls:
        for number in range(2):
            assert request_over(tls, "GET", "/", {"Host": "two.any.example.com"}).status == 200
            second.connections[number].close()
            eventually(partial(lambda wanted: left_by_the_gateway() >= wanted, number + 1), "the gateway to notice")
    assert len(second.connections) == 2
    assert not first.connections


@decrypting
def test_decrypted_tls_to_an_evil_address(transparent: Gateway, origin: Origins, wire: Wire) -> None:
    origin.https(SECOND, "www.example.com")
    with dial(SECOND, 443) as sock, tls_client(sock, "www.example.com", transparent.inspect_ca) as tls:
        reply = request_over(tls, "GET", "/evil-decrypted", {"Host": "www.example.com"})
        assert (reply.status, reply.header("x-egress-reason")) == (403, "address_mismatch")
    assert not [packet for packet in wire.syns_to(SECOND) if packet.src != CLIENT]
