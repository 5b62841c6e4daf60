"""CONNECT: TLS passes undecrypted, HTTP is judged, bytes pass under a tcp rule, anything else is refused."""

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from support.ca import SessionCa
from support.gateway import Gateway, read_reply
from support.http import client_hello, connect_tunnel, read_alert, read_response, request_over, tls_client
from support.lab import log_from_now
from support.origin import SSH_GREETING, Origins
from support.sockets import read_exactly
from support.waiting import PATIENCE, eventually
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"


def tunnel(gateway: Gateway, target: str) -> socket.socket:
    status, sock = connect_tunnel(gateway, target)
    assert status == 200
    return sock


def test_tls_passes_undecrypted(inspect: Gateway, origin: Origins, ca: SessionCa) -> None:
    server = origin.https(WEB, "www.example.com")
    told = log_from_now(inspect)
    with tunnel(inspect, "www.example.com:443") as sock, tls_client(sock, "www.example.com", ca.pem_path) as tls:
        assert request_over(tls, "GET", "/hello", {"Host": "www.example.com"}).status == 200
    assert server.requests[0].path == "/hello"
    (entry,) = eventually(told, "a line in the access log")
    assert (entry["requested_server_name"], entry["verdict"]) == ("www.example.com", "allow")
    assert entry["tls_mode"] == "passthrough"
    assert entry["upstream_host"] == f"{WEB}:443"
    assert entry["bytes_sent"] > 100
    assert entry["bytes_received"] > 100
    eventually(lambda: "www.example.com:443 allowed" in inspect.output, "a line in the gateway's own log")


@pytest.mark.parametrize(
    ("hello", "alert", "reason"),
    [
        (client_hello("evil.example"), 112, "sni_mismatch"),
        (client_hello("other.example.com"), 112, "sni_mismatch"),
        (client_hello(no_sni=True), 112, "sni_missing"),
        (client_hello("203.0.113.10"), 112, "sni_malformed"),
        (client_hello("www.example.com", two_names="evil.example"), 112, "sni_malformed"),
        (client_hello("www.example.com", duplicate="evil.example"), 112, "sni_malformed"),
        (client_hello(b"www.example.com\x00.evil.example"), 112, "sni_malformed"),
        (client_hello("www.example.com", handshake_type=2), 49, "malformed_hello"),
        (client_hello("www.example.com", handshake_length=70_000), 49, "hello_too_large"),
    ],
    ids=["denied", "another", "none", "address", "two names", "twice", "nul", "not a hello", "huge"],
)
def test_a_hello_that_does_not_fit(inspect: Gateway, wire: Wire, hello: bytes, alert: int, reason: str) -> None:
    with tunnel(inspect, "www.example.com:443") as sock:
        with contextlib.suppress(OSError):
            sock.sendall(hello)
        said = read_alert(sock)
        assert said is not None
        assert (said.level, said.description) == (2, alert)
        assert sock.recv(10) == b""
    inspect.wait_for_log(reason=reason, verdict="deny")
    assert not wire.syns_to(WEB)
    assert not wire.syns_to(OTHER)


def test_a_hello_in_many_segments_and_records(inspect: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "www.example.com")
    hello = client_hello("www.example.com", post_quantum=True, grease=True, record_size=200)
    with tunnel(inspect, "www.example.com:443") as sock:
        for start in range(0, len(hello), 100):
            sock.sendall(hello[start : start + 100])
            time.sleep(0.002)
        assert sock.recv(1) == b"\x16"
    assert server.wait_for(1)[0].sni == "www.example.com"


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-x\r\n", b"\r\nGET / HTTP/1.1\r\n\r\n", b"\x16\x03\x04\x00\x10" + bytes(16), b"\x80\x2b\x01", b"get / "],
)
def test_neither_tls_nor_http(inspect: Gateway, wire: Wire, data: bytes) -> None:
    with tunnel(inspect, "www.example.com:443") as sock:
        sock.sendall(data)
        assert read_reply(sock) == b""
    inspect.wait_for_log(reason="protocol_unknown")
    assert not wire.syns_to(WEB)


def test_a_silent_client_is_closed(gateway: Callable[..., Gateway], names: object) -> None:
    from_rules = RULE_443
    with gateway(from_rules, {"egress_hello_timeout": 1}, data_path="inspect") as gw:
        with tunnel(gw, "www.example.com:443") as sock:
            assert read_reply(sock, 8).ending == "closed"  # the usual timeout is ten
        # All at once, so that it is in time.
        connect = b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n"
        head, _, rest = gw.raw(connect + client_hello("www.example.com")[:50], 8).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert rest.startswith(b"\x15")
        gw.wait_for_log(reason="client_timeout")


RULE_443 = """
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: www}
spec: {destination: {services: [www.example.com]}, ports: [{port: 443, protocol: https}]}
"""


def test_plain_http_in_a_tunnel_becomes_tls(inspect: Gateway, origin: Origins) -> None:
    server = origin.https(WEB, "www.example.com")
    with tunnel(inspect, "www.example.com:443") as sock:
        for number in range(3):
            assert request_over(sock, "GET", f"/tunnel{number}", {"Host": "www.example.com"}).status == 200
        denied = request_over(sock, "GET", "/x", {"Host": "evil.example"})
        assert (denied.status, denied.header("x-egress-reason")) == (421, "host_mismatch")
    assert server.requests[0].connection.sni == "www.example.com"
    assert inspect.wait_for_log(path="/tunnel0")["tls_mode"] == "originate"


def test_an_absolute_uri_in_a_tunnel_must_be_the_tunnels(inspect: Gateway, origin: Origins, wire: Wire) -> None:
    origin.https(WEB, "www.example.com")
    with tunnel(inspect, "www.example.com:443") as sock:
        reply = request_over(sock, "GET", "http://evil.example/", {"Host": "www.example.com"})
        assert reply.status == 421
    wire.assert_nothing_left(SECOND)


def test_connect_inside_a_tunnel(inspect: Gateway, wire: Wire) -> None:
    with tunnel(inspect, "www.example.com:80") as sock:
        sock.sendall(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        assert read_response(sock, "CONNECT").status == 400
    wire.assert_nothing_left(SECOND)


def test_bytes_under_a_tcp_rule_and_the_server_speaks_first(inspect: Gateway, origin: Origins) -> None:
    origin.tcp(WEB, 25, greeting=SSH_GREETING)
    told = log_from_now(inspect)
    with tunnel(inspect, "tcp.example.com:25") as sock:
        assert read_exactly(sock, len(SSH_GREETING)) == SSH_GREETING
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock).ending == "closed"
    (entry,) = eventually(told, "a line in the access log")
    assert entry["authority"] == "tcp.example.com:25"
    assert (entry["bytes_received"], entry["bytes_sent"]) == (5, 5 + len(SSH_GREETING))


def test_a_tcp_destination_that_refuses(inspect: Gateway) -> None:
    status, sock = connect_tunnel(inspect, "tcp.example.com:25")
    sock.close()
    assert status == 502


def test_half_close_is_passed_on(inspect: Gateway, origin: Origins) -> None:
    """The destination answers only when the client has said everything."""
    server = origin.tcp(WEB, 25)
    payload = b"x" * 300_000
    with tunnel(inspect, "tcp.example.com:25") as sock:
        threading.Thread(target=lambda: (sock.sendall(payload), sock.shutdown(socket.SHUT_WR))).start()
        got = read_reply(sock)
    assert hashlib.sha256(got).digest() == hashlib.sha256(payload).digest()
    assert server.connections[0].received_size == len(payload)


def test_a_changed_rule_ends_the_tunnels_it_no_longer_allows(
    gateway: Callable[..., Gateway], origin: Origins, names: object, ca: SessionCa
) -> None:
    origin.https(WEB, "www.example.com")
    with gateway({"www.yaml": RULE_443}, data_path="inspect") as gw:
        with tunnel(gw, "www.example.com:443") as sock, tls_client(sock, "www.example.com", ca.pem_path) as tls:
            assert request_over(tls, "GET", "/", {"Host": "www.example.com"}).status == 200
            gw.delete_rule("www.yaml")
            tls.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionResetError):
                assert tls.recv(10) == b""
        entry = gw.wait_for_log(requested_server_name="www.example.com")
        assert (entry["verdict"], entry["reason"]) == ("deny", "no_rule")
