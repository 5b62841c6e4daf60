"""Memory and time on the inspect path."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Program
from support.http import read_response, request_over, request_via_proxy
from support.netns import BLACKHOLE_V4
from support.origin import Origins

pytestmark = pytest.mark.private_network

WEB = "203.0.113.10"
GIB = 1 << 30
MOST_GROWTH = 64 * 1024  # KiB


@pytest.fixture(scope="module")
def program() -> Program:
    """What the inspect path holds in memory, and waits for, it does in any program."""
    return "mitmdump"


class Rss:
    """The largest resident memory of a gateway while this is open, above what it was at first."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.first = gateway.rss_kib()
        self.most = self.first
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, self.gateway.rss_kib())

    @property
    def growth(self) -> int:
        return self.most - self.first

    def __enter__(self) -> "Rss":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


@pytest.mark.slow
def test_a_gibibyte_down(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    with Rss(inspect) as rss, inspect.connect(60) as sock:
        sock.sendall(
            b"GET http://www.example.com/bytes/%d HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n" % GIB
        )
        size = 0
        while data := sock.recv(1 << 20):
            size += len(data)
    assert size > GIB
    assert rss.growth < MOST_GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_gibibyte_up(inspect: Gateway, origin: Origins, chunked: bool) -> None:
    server = origin.http(WEB)
    piece = b"x" * 65536
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % GIB
    with Rss(inspect) as rss, inspect.connect(60) as sock:
        sock.sendall(b"POST http://www.example.com/echo HTTP/1.1\r\nHost: www.example.com\r\n" + framing + b"\r\n\r\n")
        for _ in range(GIB // len(piece)):
            sock.sendall(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
        assert read_response(sock).status == 200
    assert server.requests[0].body_size == GIB
    assert rss.growth < MOST_GROWTH


@pytest.mark.slow
def test_a_gibibyte_through_a_tunnel(inspect: Gateway, origin: Origins) -> None:
    origin.tcp(WEB, 25)
    with Rss(inspect) as rss, inspect.connect(60) as sock:
        sock.sendall(b"CONNECT tcp.example.com:25 HTTP/1.1\r\nHost: tcp.example.com:25\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        piece = b"x" * 65536

        def send() -> None:
            for _ in range(GIB // len(piece)):
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)

        threading.Thread(target=send).start()
        size = 0
        while data := sock.recv(1 << 20):
            size += len(data)
    assert size == GIB
    assert rss.growth < MOST_GROWTH


def test_an_upload_waits_while_its_destination_is_looked_for(inspect: Gateway, origin: Origins, dns: DnsServer) -> None:
    """mitmproxy would read and queue all of it meanwhile."""
    server = origin.http(WEB)
    dns.set("slow.any.example.com", [WEB], ttl=0)
    dns.delay("slow.any.example.com", 1.0)
    size = 200_000_000
    with Rss(inspect) as rss, inspect.connect(60) as sock:
        sock.sendall(
            b"POST http://slow.any.example.com/echo HTTP/1.1\r\nHost: slow.any.example.com\r\n"
            b"Content-Length: %d\r\n\r\n" % size
        )
        for _ in range(size // 100_000):
            sock.sendall(b"x" * 100_000)
        assert read_response(sock).status == 200
    assert server.requests[0].body_size == size
    assert rss.growth < 24 * 1024


def test_pipelined_requests_wait_their_turn(inspect: Gateway, origin: Origins) -> None:
    origin.http(WEB)
    head = b"GET http://www.example.com/slow HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    with Rss(inspect) as rss, inspect.connect(60) as sock:
        sock.sendall(head)
        sock.settimeout(0.7)
        with pytest.raises(TimeoutError):
            sock.sendall(head * 1_000_000)
    assert rss.growth < 16 * 1024


def test_a_destination_that_does_not_answer(gateway: Callable[..., Gateway], dns: DnsServer, rules: str) -> None:
    dns.set("www.example.com", [BLACKHOLE_V4])
    with gateway(rules, {"egress_connect_timeout": 1}, data_path="inspect") as gw:
        started = time.monotonic()
        reply = request_via_proxy(gw, "GET", "http://www.example.com/")
        assert (reply.status, reply.header("x-egress-reason")) == (504, "connect_timeout")
        assert time.monotonic() - started < 8


def test_tls_that_never_answers(gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins) -> None:
    origin.scripted(WEB, 443, b"", stays_open=True)
    with gateway(rules, {"egress_connect_timeout": 1}, data_path="inspect") as gw:
        reply = request_via_proxy(gw, "GET", "http://www.example.com:443/")
        assert (reply.status, reply.header("x-egress-reason")) == (502, "upstream_tls_failed")


def test_an_idle_connection_is_closed(gateway: Callable[..., Gateway], names: object, rules: str) -> None:
    with gateway(rules, {"egress_idle_timeout": 2}, data_path="inspect") as gw, gw.connect() as sock:
        assert request_over(sock, "GET", "http://evil.example/").status == 403
        started = time.monotonic()
        assert sock.recv(10) == b""
        assert time.monotonic() - started < 10


def test_a_destination_that_never_answers(
    gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins
) -> None:
    origin.scripted(WEB, 80, b"", stays_open=True)
    with gateway(rules, {"egress_idle_timeout": 2}, data_path="inspect") as gw:
        reply = request_via_proxy(gw, "GET", "http://www.example.com/")
        assert (reply.status, reply.header("x-egress-reason")) == (504, "upstream_timeout")


def test_an_idle_tunnel_is_closed(gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins) -> None:
    origin.tcp(WEB, 25)
    with gateway(rules, {"egress_idle_timeout": 2}, data_path="inspect") as gw, gw.connect() as sock:
        sock.sendall(b"CONNECT tcp.example.com:25 HTTP/1.1\r\nHost: tcp.example.com:25\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert sock.recv(100) == b""
        assert gw.wait_for_log(authority="tcp.example.com:25")["response_flags"] == "UT"


def test_a_changed_rule_ends_a_download(
    gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins
) -> None:
    origin.http(WEB)
    with gateway({"rules.yaml": rules}, data_path="inspect") as gw, gw.connect() as sock:
        sock.sendall(b"GET http://www.example.com/bytes/%d HTTP/1.1\r\nHost: www.example.com\r\n\r\n" % GIB)
        sock.recv(100_000)
        gw.delete_rule("rules.yaml")
        size = 0
        try:
            while data := sock.recv(1 << 20):
                size += len(data)
        except ConnectionResetError:
            pass
        assert size < GIB / 2
        assert gw.wait_for_log(verdict="deny")["reason"] == "no_rule"


def test_an_unanswered_request_is_refused_when_the_rules_change(
    gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins
) -> None:
    server = origin.tcp(WEB, 80, greeting=b"")
    with gateway({"rules.yaml": rules}, data_path="inspect") as gw, gw.connect() as sock:
        server.greeting = b""
        sock.sendall(b"GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n")
        time.sleep(0.1)
        gw.delete_rule("rules.yaml")
        sock.sendall(b"\r\n")
        assert read_response(sock).status == 403
