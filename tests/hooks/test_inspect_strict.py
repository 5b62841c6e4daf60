"""Bytes that two parsers could read differently never reach mitmproxy's parser, let alone a destination."""

import time
from collections.abc import Callable

import pytest

from support.gateway import Gateway
from support.http import connect_refusal
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, SECOND = "203.0.113.10", "203.0.113.30"

_HOST = b"Host: www.example.com\r\n"
_GET = b"GET http://www.example.com/ HTTP/1.1\r\n"
_POST = b"POST http://www.example.com/ HTTP/1.1\r\n"

# What is wrong, the request, the status, the reason.
MALFORMED = [
    ("two Host headers", _GET + _HOST + _HOST, 400, "malformed_request"),
    ("two Host headers, the other one denied", _GET + _HOST + b"Host: evil.example\r\n", 400, "malformed_request"),
    ("no Host header", _GET, 400, "malformed_request"),
    ("a folded Host header", _GET + b"Host: www.example.com\r\n .evil.example\r\n", 400, "malformed_request"),
    ("a comma in Host", _GET + b"Host: www.example.com, evil.example\r\n", 400, "malformed_host"),
    ("userinfo in Host", _GET + b"Host: a@www.example.com\r\n", 400, "malformed_host"),
    ("a NUL in Host", _GET + b"Host: www.example.com\x00\r\n", 400, "malformed_request"),
    ("another host in Host", _GET + b"Host: evil.example\r\n", 421, "host_mismatch"),
    ("another port in Host", _GET + b"Host: www.example.com:8080\r\n", 400, "malformed_request"),
    ("a denied host in the URI", b"GET http://evil.example/ HTTP/1.1\r\n" + _HOST, 403, "no_rule"),
    ("userinfo in the URI", b"GET http://a@www.example.com/ HTTP/1.1\r\n" + _HOST, 400, "malformed_host"),
    ("origin-form to a proxy", b"GET / HTTP/1.1\r\n" + _HOST, 400, "malformed_request"),
    ("a bare LF", _GET + b"Host: www.example.com\nX: y\r\n", 400, "malformed_request"),
    ("a bare CR", _GET + _HOST + b"X: a\rb\r\n", 400, "malformed_request"),
    ("white space before a colon", _GET + b"Host : www.example.com\r\n", 400, "malformed_request"),
    ("an empty line first", b"\r\n" + _GET + _HOST, 400, "malformed_request"),
    ("HTTP/2.0 in the request line", b"GET http://www.example.com/ HTTP/2.0\r\n" + _HOST, 400, "malformed_request"),
    ("both lengths", _POST + _HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, "malformed_request"),
    ("two lengths", _POST + _HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "malformed_request"),
    ("a length with a sign", _POST + _HOST + b"Content-Length: +5\r\n", 400, "malformed_request"),
    ("gzip as coding", _POST + _HOST + b"Transfer-Encoding: gzip, chunked\r\n", 400, "malformed_request"),
    ("a nested CONNECT with a body", b"CONNECT www.example.com:443 HTTP/1.1\r\n" + _HOST + b"Content-Length: 1\r\n",
     400, "malformed_request"),
    ("an upgrade to h2c", _GET + _HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n", 403, "upgrade_not_allowed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_refused(inspect: Gateway, wire: Wire, request_bytes: bytes, status: int, reason: str) -> None:
    reply = inspect.raw(request_bytes + b"\r\n")
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply
    assert f"x-egress-reason: {reason}".encode() in reply
    assert not wire.syns_to(WEB)
    wire.assert_nothing_left(SECOND)


def test_a_bad_chunk_ends_the_connection(inspect: Gateway) -> None:
    reply = inspect.raw(_POST + _HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n")
    assert reply.ending == "closed"
    assert b"HTTP/1.1 200" not in reply


def test_a_header_that_never_ends(inspect: Gateway) -> None:
    reply = inspect.raw([_GET, _HOST, *[b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(100)]], pause=0)
    assert reply.startswith(b"HTTP/1.1 431"), reply


def test_a_header_that_takes_too_long(gateway: Callable[..., Gateway], names: object) -> None:
    with gateway("", {"egress_header_timeout": 1}, data_path="inspect") as gw, gw.connect() as sock:
        sock.sendall(_GET)
        started = time.monotonic()
        assert sock.recv(100).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 8
        gw.wait_for_log(reason="client_timeout")


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        ("evil.example:443", 403, "no_rule"),
        ("www.example.com:22", 403, "port_not_allowed"),
        ("127.0.0.1:443", 403, "no_rule"),
        ("0x7f.1:443", 403, "no_rule"),
        ("www.example.com", 400, "malformed_host"),
        ("a@www.example.com:443", 400, "malformed_host"),
    ],
)
def test_connect_refused(inspect: Gateway, wire: Wire, target: str, status: int, reason: str) -> None:
    reply = connect_refusal(inspect, target)
    assert (reply.status, reply.header("x-egress-reason")) == (status, reason)
    assert not wire.syns_to(WEB)
    wire.assert_nothing_left(SECOND, name="evil.example")


def test_what_follows_a_refused_connect_is_not_a_request(inspect: Gateway, wire: Wire) -> None:
    reply = inspect.raw(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n" + _GET + _HOST + b"\r\n")
    assert reply.count(b"HTTP/1.1 ") == 1, reply
    assert not wire.syns_to(WEB)
