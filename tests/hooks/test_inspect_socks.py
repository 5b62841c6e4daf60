"""SOCKS5 on the inspect data path."""

import socket
from collections.abc import Callable

import pytest

from support.ca import SessionCa
from support.gateway import Gateway, read_reply
from support.http import client_hello, read_alert, request_over, socks5_connect, tls_client
from support.lab import UNRECOGNIZED_NAME
from support.origin import SSH_GREETING, Origins
from support.sockets import read_exactly
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, SECOND = "203.0.113.10", "203.0.113.30"


@pytest.fixture
def socks(shared_gateway: Callable[..., Gateway], names: object, rules: str) -> Gateway:
    return shared_gateway(rules, data_path="inspect", mode="socks5")


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [
        ("evil.example", 443, 2),
        ("www.example.com", 22, 2),
        ("127.0.0.1", 443, 2),
        (b"127.1", 443, 2),
        ("::ffff:127.0.0.1", 443, 2),
        (b"a b", 443, 2),
        (b"\xff\xfe", 443, 2),
        ("tcp.example.com", 25, 4),
    ],
)
def test_success_is_never_said_before_the_verdict(
    socks: Gateway, wire: Wire, host: str | bytes, port: int, code: int
) -> None:
    got, sock = socks5_connect(socks, host, port)
    sock.close()
    assert got == code
    wire.assert_nothing_left(SECOND, name="evil.example")


def test_tls_http_and_bytes(socks: Gateway, origin: Origins, ca: SessionCa) -> None:
    origin.https(WEB, "www.example.com")
    code, sock = socks5_connect(socks, "www.example.com", 443)
    assert code == 0
    with sock, tls_client(sock, "www.example.com", ca.pem_path) as tls:
        assert request_over(tls, "GET", "/tls", {"Host": "www.example.com"}).status == 200
    code, sock = socks5_connect(socks, "www.example.com", 443)
    with sock:
        assert request_over(sock, "GET", "/originated", {"Host": "www.example.com"}).status == 200
    origin.tcp(WEB, 25, greeting=SSH_GREETING)
    code, sock = socks5_connect(socks, "tcp.example.com", 25)
    assert code == 0
    with sock:
        assert read_exactly(sock, len(SSH_GREETING)) == SSH_GREETING


def test_a_hello_that_does_not_fit(socks: Gateway, wire: Wire) -> None:
    _, sock = socks5_connect(socks, "www.example.com", 443)
    with sock:
        sock.sendall(client_hello("evil.example"))
        assert read_alert(sock) == UNRECOGNIZED_NAME
    assert not wire.syns_to(WEB)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x01\x01\x01\x01\x01\x00\x50", b"\x05\x00\x05\x07\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x09\x01\x01\x01\x01\x00\x50", b"\x05\x00\x05\x08\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x01\x01\x01\x01\x01\x00\x00", b"\x05\x00\x05\x01\x00\x01" + bytes(6)),
    ],
    ids=["HTTP", "no method", "BIND", "address type", "port 0"],
)
def test_malformed_handshakes(socks: Gateway, data: bytes, answer: bytes) -> None:
    reply = socks.raw(data)
    assert reply == answer
    assert reply.ending == "closed"


def test_byte_by_byte(socks: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    name = b"www.example.com"
    handshake = b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x00\x50"
    request = b"GET /bytes/3 HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"
    reply = socks.raw([bytes([byte]) for byte in handshake + request], pause=0.001)
    assert b"HTTP/1.1 200" in reply


def test_user_and_password(gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins) -> None:
    origin.http(WEB)
    with gateway(rules, {"proxyauth": "me:secret"}, data_path="inspect", mode="socks5") as gw:
        code, sock = socks5_connect(gw, "www.example.com", 80)
        sock.close()
        assert code == 0xFF
        for password, answer in ((b"wrong!", b"\x01\x01"), (b"secret", b"\x01\x00")):
            with gw.connect() as sock:
                sock.sendall(b"\x05\x01\x02")
                assert read_exactly(sock, 2) == b"\x05\x02"
                sock.sendall(b"\x01\x02me" + bytes([len(password)]) + password)
                assert read_exactly(sock, 2) == answer
                if password == b"wrong!":
                    assert read_reply(sock) == b""
                    continue
                target = b"www.example.com"
                sock.sendall(b"\x05\x01\x00\x03" + bytes([len(target)]) + target + b"\x00\x50")
                assert read_exactly(sock, 10)[1] == 0
                assert request_over(sock, "GET", "/auth", {"Host": "www.example.com"}).status == 200


def test_a_handshake_that_takes_too_long(gateway: Callable[..., Gateway], names: object) -> None:
    with gateway("", {"egress_header_timeout": 1}, data_path="inspect", mode="socks5") as gw:
        reply = gw.raw(b"\x05", 8)  # the usual timeout is ten
        assert reply.ending == "closed"
        gw.wait_for_log(reason="client_timeout")


def test_a_client_that_leaves(socks: Gateway) -> None:
    with socks.connect() as sock:
        sock.sendall(b"\x05\x01")
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock).ending == "closed"
