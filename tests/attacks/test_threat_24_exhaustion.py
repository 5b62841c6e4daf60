"""Threat 24: too much, too long, too slow, too many. Memory and time stay bounded, and others are served."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable

import pytest

from support.gateway import read_reply
from support.http import connect_tunnel, read_response, request_over, request_via_proxy
from support.lab import ALLOWED, BYTES, DENIED, OTHER, RULES, Lab, answered, say
from support.origin.raw import RawOrigin
from support.waiting import PATIENCE, eventually

MOST_CONNECTIONS = 300
OPTIONS = {"egress_max_connections_per_client": MOST_CONNECTIONS}
MOST_MEMORY = 32 * 1024  # KiB that an attack may add
MEGABYTE = 1 << 20


def pour(sock: socket.socket, pieces: Iterable[bytes]) -> int:
    """Send until the other side has had enough; how many bytes went."""
    sent = 0
    sock.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        for piece in pieces:
            sock.sendall(piece)
            sent += len(piece)
    return sent


def head_of(host: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} http://{host}/ HTTP/1.1", f"Host: {host}", *lines, ""]).encode()


@pytest.fixture(autouse=True)
def memory_stays_bounded(lab: Lab):
    before = lab.gateway.rss_kib()
    yield
    assert lab.gateway.rss_kib() - before < MOST_MEMORY
    # And whoever comes next is served.
    assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/").status == 200


HEADERS = {
    "a line without end": b"X-Long: " + b"a" * MEGABYTE,
    "lines without end": b"X-Line: value\r\n" * (MEGABYTE // 15),
    "a name without end": b"a" * MEGABYTE,
    "a request line without end": b"",
}


@pytest.mark.parametrize("host", [ALLOWED, DENIED])
@pytest.mark.parametrize("piece", HEADERS.values(), ids=HEADERS.keys())
def test_threat_24_a_hundred_megabytes_of_headers(lab: Lab, host: str, piece: bytes) -> None:
    beginning = head_of(host) if piece else f"GET http://{host}/".encode()
    with lab.refused("headers_too_large"), lab.gateway.connect() as sock:
        sent = pour(sock, [beginning, *[piece or b"a" * MEGABYTE] * 100])
    assert sent < 20 * MEGABYTE, "the gateway read it all"


def test_threat_24_headers_that_are_just_too_large_are_answered(lab: Lab) -> None:
    with lab.refused("headers_too_large"):
        reply = lab.gateway.raw(head_of(ALLOWED) + b"X: " + b"a" * 70_000 + b"\r\n\r\n")
    answered(reply, 431, "headers_too_large")


def test_threat_24_more_header_fields_than_anybody_needs(lab: Lab) -> None:
    with lab.refused("headers_too_large"):
        reply = lab.gateway.raw(head_of(ALLOWED, *["a:"] * 300) + b"\r\n")
    answered(reply, 431, "headers_too_large")


def test_threat_24_large_headers_below_the_limit_pass(lab: Lab) -> None:
    response = request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/", {"X-Large": "a" * 60_000})
    assert response.status == 200


def test_threat_24_headers_in_a_tunnel(lab: Lab) -> None:
    with lab.refused("headers_too_large"), lab.tunnel("connect", ALLOWED, 80) as sock:
        sent = pour(sock, [b"GET / HTTP/1.1\r\n", *[HEADERS["lines without end"]] * 100])
    assert sent < 20 * MEGABYTE


SLOW = {
    "a header line every now and then": head_of(ALLOWED).splitlines(keepends=True) + [b"X-Slow: 1\r\n"] * 40,
    "a byte every now and then": [head_of(ALLOWED)[n : n + 1] for n in range(40)],
    "a line and then nothing": [b"GET http://allowed.example/ HTTP/1.1\r\n"],
}


def test_threat_24_headers_that_come_slowly(in_a_hurry: Callable[[str], Lab]) -> None:
    """All at once, since each takes the whole egress_header_timeout."""
    lab = in_a_hurry("egress_header_timeout")
    started = time.monotonic()
    with lab.refused("client_timeout", times=len(SLOW)), contextlib.ExitStack() as stack:
        clients = {what: stack.enter_context(lab.gateway.connect()) for what in SLOW}
        for number in range(40):
            for what, sock in clients.items():
                with contextlib.suppress(OSError):
                    sock.sendall(b"".join(SLOW[what][number : number + 1]))
            if time.monotonic() - started > 0.8:
                break  # or a client that goes on after its answer would hear of a reset instead of an end
            time.sleep(0.05)
        for what, sock in clients.items():
            reply = read_reply(sock, 8)  # the usual timeout is ten
            assert reply.startswith(b"HTTP/1.1 408 "), what
            answered(reply, 408, "client_timeout")


@pytest.mark.parametrize("line", ["Content-Length: 314572800", "Transfer-Encoding: chunked"])
def test_threat_24_a_body_to_a_denied_host_is_not_kept(lab: Lab, line: str) -> None:
    """300 MB: refused at the head, and the body is not waited for."""
    piece = b"100000\r\n" + bytes(MEGABYTE) + b"\r\n" if "chunked" in line else bytes(MEGABYTE)
    with lab.refused("no_rule"), lab.gateway.connect() as sock:
        sock.sendall(head_of(DENIED, line, method="POST") + b"\r\n")
        assert read_response(sock).status == 403
        sent = pour(sock, [piece] * 300)
    assert sent < 20 * MEGABYTE


def test_threat_24_a_body_that_is_poured_before_the_answer_is_read(lab: Lab) -> None:
    with lab.refused("no_rule"), lab.gateway.connect() as sock:
        head = head_of(DENIED, "Content-Length: 314572800", method="POST") + b"\r\n"
        assert pour(sock, [head, *[bytes(MEGABYTE)] * 300]) < 20 * MEGABYTE


def test_threat_24_an_allowed_body_waits_for_a_slow_origin(lab: Lab, origin, dns) -> None:
    """Nothing is kept that cannot be sent on."""

    awake = threading.Event()

    class Asleep(RawOrigin):
        def serve(self, connection) -> None:
            awake.wait(5)

    dns.set("b.wild.example", ["203.0.113.14"])
    origin.start(Asleep("203.0.113.14", 80))
    with lab.gateway.connect() as sock:
        sock.settimeout(1)
        sent = 0
        sock.sendall(head_of("b.wild.example", "Content-Length: 314572800", method="POST") + b"\r\n")
        with contextlib.suppress(OSError):
            for _ in range(300):
                sock.sendall(bytes(MEGABYTE))
                sent += MEGABYTE
    awake.set()
    assert sent < 40 * MEGABYTE, "the gateway keeps what the origin does not take"


def test_threat_24_a_response_without_end_waits_for_a_slow_client(lab: Lab) -> None:
    before = lab.gateway.rss_kib()
    with lab.gateway.connect() as sock:
        say(sock, b"GET http://allowed.example/bytes/300000000 HTTP/1.1\r\nHost: allowed.example\r\n\r\n")
        time.sleep(1)
        assert lab.gateway.rss_kib() - before < MOST_MEMORY, "the gateway keeps what the client does not take"


def test_threat_24_a_response_header_without_end(lab: Lab, origin, dns) -> None:
    dns.set("c.wild.example", ["203.0.113.15"])
    origin.scripted("203.0.113.15", 80, b"HTTP/1.1 200 OK\r\n" + b"X-Long: value\r\n" * (50 * MEGABYTE // 15))
    response = request_via_proxy(lab.gateway, "GET", "http://c.wild.example/")
    assert (response.status, response.header("x-egress-reason")) == (502, "upstream_malformed")


def test_threat_24_requests_without_reading_the_answers(lab: Lab) -> None:
    """A thousand requests for 200 KB each: the gateway goes on with the next when the last answer has been taken."""
    before = len(lab.places.allowed.requests)

    def asked() -> int:
        return len(lab.places.allowed.requests) - before

    def has_stopped() -> bool:
        last = asked()
        time.sleep(0.3)
        return 0 < last == asked()

    with lab.gateway.connect() as sock:
        one = b"GET http://allowed.example/bytes/200000 HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
        say(sock, one * 1000)
        eventually(has_stopped, "the gateway to wait for its client")
        assert asked() < 200


def test_threat_24_requests_of_a_client_that_has_left(lab: Lab) -> None:
    """Nobody takes the answers, so nobody is asked any more."""
    requests = lab.places.allowed.requests
    before = len(requests)
    one = b"GET http://allowed.example/bytes/200000 HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
    with lab.gateway.connect() as sock:
        sock.sendall(one * 1000)
    when_it_left = len(requests)
    # The first one is asked before anybody can know; the next ones would follow within milliseconds.
    eventually(lambda: len(requests) > before, "the first request")
    time.sleep(1)
    assert len(requests) - when_it_left < 20


def test_threat_24_requests_of_a_client_that_only_has_no_more_of_them(lab: Lab) -> None:
    """Half of its connection is closed: it waits for the answers."""
    one = b"GET http://allowed.example/bytes/200000 HTTP/1.1\r\nHost: allowed.example\r\n\r\n"
    with lab.gateway.connect() as sock:
        sock.sendall(one * 5)
        sock.shutdown(socket.SHUT_WR)
        assert [len(read_response(sock).body) for _ in range(5)] == [200_000] * 5
        assert sock.recv(1) == b""


def test_threat_24_connections_of_one_client(lab: Lab) -> None:
    """Thousands of idle connections: the first ones are kept, the others are refused at once."""
    kept: list[socket.socket] = []
    before = lab.gateway.metric("egress_decisions_total", reason="too_many_connections")
    try:
        for number in range(1500):
            kept.append(socket.create_connection(lab.gateway.address, timeout=PATIENCE))
            if number % 40 == 0:  # no more at once than its queue holds, or the kernel slows this client down
                lab.gateway.metrics_get("/readyz")
        expected = 1500 - MOST_CONNECTIONS
        refused = lab.gateway.wait_for_metric(
            "egress_decisions_total", before + expected, reason="too_many_connections"
        )
        assert refused - before <= expected + 5
        assert lab.gateway.metric("egress_connections") <= MOST_CONNECTIONS
        lab.gateway.wait_for_log(reason="too_many_connections", verdict="deny")
        for sock in kept[-50:]:
            assert read_reply(sock, PATIENCE).ending != "quiet"
        # Those that were first are served, whatever came after them.
        assert request_over(kept[0], "GET", f"http://{ALLOWED}/").status == 200
        # Another client is not in the way.
        with socket.socket() as other:
            other.bind(("127.0.0.7", 0))
            other.connect(lab.gateway.address)
            assert request_over(other, "GET", f"http://{OTHER}/").status == 200
    finally:
        for sock in kept:
            sock.close()
    eventually(lambda: lab.gateway.metric("egress_connections") < 10, "the connections to end", every=0.1)


def test_threat_24_an_idle_connection_is_closed(lab: Lab, gateway, data_path: str) -> None:
    """After egress_idle_timeout: one that says nothing, one between requests, and a tunnel of bytes."""
    short = gateway(RULES, {"egress_idle_timeout": 2}, data_path=data_path)
    started = time.monotonic()
    status, tunnel = connect_tunnel(short, f"{BYTES}:5432")
    with short.connect() as silent, short.connect() as used, tunnel:
        assert status == 200
        assert request_over(used, "GET", f"http://{ALLOWED}/").status == 200
        assert tunnel.recv(100) == b"hello from the database\n"
        for sock in (silent, used, tunnel):
            assert read_reply(sock, PATIENCE).ending != "quiet"
    assert time.monotonic() - started > 1.9
