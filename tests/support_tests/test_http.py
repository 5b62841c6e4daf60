"""The hand-written proxy client, against a proxy that plays back bytes."""

import socket
import ssl

import pytest

from support.ca import SessionCa
from support.http import (
    Alert,
    connect_refusal,
    connect_tunnel,
    read_alert,
    request_via_proxy,
    socks5_connect,
    tls_client,
)
from support.origin import Connection, Listener, Origins, RawOrigin, ScriptedOrigin
from support.sockets import read_exactly
from support.waiting import PATIENCE

pytestmark = pytest.mark.private_network


class Proxy:
    """Looks like a gateway to the helpers, and plays back what its origin has."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        return socket.create_connection((self.listener.address, self.listener.port), timeout=timeout)

    @property
    def received(self) -> bytes:
        return bytes(self.listener.connections[0].received)


class Impatient(Listener):
    """Says `answer` before it has read anything, and takes no more."""

    answer = b""

    def serve(self, connection: Connection) -> None:
        connection.sock.sendall(self.answer)
        connection.sock.shutdown(socket.SHUT_WR)


class SocksServer(Listener):
    """Accepts every SOCKS5 request with a domain name as its own address."""

    def serve(self, connection: Connection) -> None:
        while len(connection.received) < 4:
            connection.recv()
            connection.sock.sendall(b"\x05\x00")
            connection.recv()
        connection.sock.sendall(b"\x05\x02\x00\x03\x03abc\x00\x00after")


def test_a_forwarded_request_has_the_headers_that_were_given(origin: Origins) -> None:
    proxy = Proxy(origin.scripted("127.0.0.1", 0, b"HTTP/1.1 403 No\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno"))
    response = request_via_proxy(proxy, "POST", "http://a.example:81/x?y", [("X", "1"), ("X", "2")], b"abc")
    assert (response.status, response.reason, response.text, response.header("x-a")) == (403, "No", "no", "1")
    assert proxy.received == (
        b"POST http://a.example:81/x?y HTTP/1.1\r\nHost: a.example:81\r\nX: 1\r\nX: 2\r\nContent-Length: 3\r\n\r\nabc"
    )


def test_host_can_contradict_the_url(origin: Origins) -> None:
    proxy = Proxy(origin.scripted("127.0.0.1", 0, b"HTTP/1.1 204 x\r\n\r\n"))
    assert request_via_proxy(proxy, "GET", "http://a.example/", {"Host": "b.example"}).status == 204
    assert proxy.received == b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"


def test_an_answer_to_a_body_that_is_not_taken_is_read(origin: Origins) -> None:
    listener = Impatient("127.0.0.1")
    listener.answer = b"HTTP/1.1 407 x\r\nContent-Length: 3\r\n\r\nwhy"
    reply = request_via_proxy(Proxy(origin.start(listener)), "POST", "http://a.example/", body=b"x" * 50_000_000)
    assert (reply.status, reply.text) == (407, "why")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 407 x\r\nContent-Length: 3\r\n\r\nwh"], ids=["none", "half of one"])
def test_no_answer_to_a_body_that_is_not_taken_is_an_error(origin: Origins, answer: bytes) -> None:
    listener = Impatient("127.0.0.1")
    listener.answer = answer
    with pytest.raises(ConnectionError):
        request_via_proxy(Proxy(origin.start(listener)), "POST", "http://a.example/", body=b"x" * 50_000_000)


def test_a_tunnel_starts_right_after_the_head(origin: Origins) -> None:
    answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nSSH-2.0"
    proxy = Proxy(origin.start(ScriptedOrigin("127.0.0.1", answers=[answer])))
    status, sock = connect_tunnel(proxy, "a.example:22", {"X": "1"})
    with sock:
        assert status == 200
        assert read_exactly(sock, 7) == b"SSH-2.0"
    assert proxy.received == b"CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22\r\nX: 1\r\n\r\n"


def test_a_refused_tunnel_shows_its_body(origin: Origins) -> None:
    proxy = Proxy(origin.scripted("127.0.0.1", 0, b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy"))
    response = connect_refusal(proxy, "a.example:443")
    assert (response.status, response.text) == (403, "why")


def test_a_proxy_that_hangs_up_is_an_error(origin: Origins) -> None:
    proxy = Proxy(origin.scripted("127.0.0.1", 0, b"HTTP/1.1 200"))
    with pytest.raises(EOFError, match="no complete head"):
        connect_tunnel(proxy, "a.example:443")


@pytest.mark.parametrize(
    ("host", "wire"),
    [
        ("a.example", b"\x03\x09a.example"),
        ("203.0.113.1", b"\x01\xcb\x00\x71\x01"),
        ("::1", b"\x04" + bytes(15) + b"\x01"),
        (b"127.1", b"\x03\x05127.1"),
    ],
)
def test_socks(origin: Origins, host: str | bytes, wire: bytes) -> None:
    proxy = Proxy(origin.start(SocksServer("127.0.0.1")))
    code, sock = socks5_connect(proxy, host, 443)
    with sock:
        assert code == 2
        assert read_exactly(sock, 5) == b"after"
    assert proxy.received == b"\x05\x01\x00" + b"\x05\x01\x00" + wire + b"\x01\xbb"


def test_tls_client_verifies_unless_told_otherwise(origin: Origins, ca: SessionCa) -> None:
    server = origin.https("203.0.113.10", "a.example")
    address = ("203.0.113.10", 443)
    with (
        socket.create_connection(address) as sock,
        tls_client(sock, "a.example", ca.pem_path, alpn=["x"]) as tls,
    ):
        assert tls.version() == "TLSv1.3"
    with socket.create_connection(address) as sock, pytest.raises(ssl.SSLCertVerificationError):
        tls_client(sock, "b.example", ca.pem_path)
    with (
        socket.create_connection(address) as sock,
        tls_client(sock, None, None, maximum=ssl.TLSVersion.TLSv1_2) as tls,
    ):
        assert tls.version() == "TLSv1.2"
    assert [c.sni for c in server.wait_for(3)] == ["a.example", "b.example", None]


@pytest.mark.parametrize(
    ("sent", "alert"),
    [(b"\x15\x03\x01\x00\x02\x02\x31", Alert(2, 49)), (b"", None), (b"\x15\x03", None)],
)
def test_reads_alerts(origin: Origins, sent: bytes, alert: Alert | None) -> None:
    proxy = Proxy(origin.scripted("127.0.0.1", 0, sent, until=b"!"))
    with proxy.connect() as sock:
        sock.sendall(b"!")
        assert read_alert(sock) == alert


def test_another_record_is_no_alert(origin: Origins) -> None:
    proxy = Proxy(origin.start(RawOrigin("127.0.0.1", greeting=b"\x16\x03\x03\x00\x01\x02")))
    with proxy.connect() as sock, pytest.raises(AssertionError, match="a record of type 22"):
        read_alert(sock)
