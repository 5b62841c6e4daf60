"""Threats 6 to 8: hellos in many pieces, without end, and with an encrypted name."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence

import pytest

from support.gateway import Gateway
from support.http import client_hello, read_alert, request_over, tls_client
from support.lab import (
    ACCESS_DENIED,
    ALLOWED,
    BYTES,
    DENIED,
    UNRECOGNIZED_NAME,
    Lab,
    Way,
    alert_for,
    bytewise,
    rule,
    say,
)
from support.sockets import read_exactly

MOST_MEMORY = 32 * 1024  # KiB that an attack may add
# --- 6 ---

HELLO = client_hello(ALLOWED)
UNDERSTOOD: dict[str, Sequence[bytes]] = {
    "in one segment": [HELLO],
    "one byte a segment": bytewise(HELLO),
    "two segments": [HELLO[:100], HELLO[100:]],
    "cut in the record header": [HELLO[:3], HELLO[3:]],
    "cut in the middle of the name": [HELLO[: HELLO.index(b"allowed") + 4], HELLO[HELLO.index(b"allowed") + 4 :]],
    "several records": [client_hello(ALLOWED, record_size=64)],
    "one byte a record": [client_hello(ALLOWED, record_size=1)],
    "several records in several segments": bytewise(client_hello(ALLOWED, record_size=50)),
    "a post-quantum key share": [client_hello(ALLOWED, post_quantum=True)],
    "a post-quantum key share in small records": [client_hello(ALLOWED, post_quantum=True, record_size=500)],
    "GREASE": [client_hello(ALLOWED, grease=True)],
    "all that a browser sends": [client_hello(ALLOWED, grease=True, post_quantum=True, ech=True, alpn=("http/1.1",))],
    "TLS 1.2": [client_hello(ALLOWED, versions=())],
    "record version 3.3": [client_hello(ALLOWED, record_version=0x0303)],
    "much padding": [client_hello(ALLOWED, padding=8000)],
    "unknown extensions": [client_hello(ALLOWED, extra_extensions=[(0xABCD, b"x" * 100), (0xABCE, b"")])],
    "the name in capitals, with a dot at the end": [client_hello("ALLOWED.Example.")],
}


@pytest.mark.parametrize("pieces", UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_threat_06_a_hello_in_any_shape_is_understood(lab: Lab, pieces: Sequence[bytes]) -> None:
    connections = len(lab.places.allowed_tls.connections)
    with lab.tunnel("connect", ALLOWED) as sock:
        say(sock, pieces, pause=0.0005)
        answer = read_exactly(sock, 5)
    assert answer[0] in (0x16, 0x15), answer  # the origin's hello; OpenSSL itself refuses the odd one
    connection = lab.places.allowed_tls.wait_for(connections + 1)[connections]
    # Not a byte of it was changed on the way.
    assert connection.client_hello == b"".join(pieces)


@pytest.mark.parametrize("way", ["connect", "socks5"])
def test_threat_06_a_whole_handshake_one_byte_a_segment(lab: Lab, way: Way, ca) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ca.client_context().wrap_bio(incoming, outgoing, server_hostname=ALLOWED)
    with lab.tunnel(way, ALLOWED) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                say(sock, bytewise(outgoing.read()), pause=0.0002)
                incoming.write(sock.recv(65536))
    assert tls.version() == "TLSv1.3"


# --- 7 ---


def growth(gateway: Gateway, before: int) -> int:
    return gateway.rss_kib() - before


TOO_LARGE = {
    "announces 16 MB": client_hello(ALLOWED, handshake_length=0xFFFFFF),
    "announces a byte more than is allowed": client_hello(ALLOWED, handshake_length=65_537),
    "is 70 KiB, and right": client_hello(ALLOWED, padding=64_000, ciphers=[0x1301, 0x1302, 0x1303] * 1000),
    "is 13 KiB in 80 KiB of records of one byte": client_hello(ALLOWED, padding=13_000, record_size=1),
}


@pytest.mark.parametrize("hello", TOO_LARGE.values(), ids=TOO_LARGE.keys())
@pytest.mark.parametrize("way", ["connect", "socks5"])
def test_threat_07_a_hello_that_is_too_large(lab: Lab, way: Way, hello: bytes) -> None:
    with lab.refused("hello_too_large"):
        assert alert_for(lab.tunnel(way, ALLOWED), hello) == ACCESS_DENIED


def test_threat_07_a_hello_that_never_ends(lab: Lab) -> None:
    """100 MB of handshake records: refused after 64 KiB of them."""
    before = lab.gateway.rss_kib()
    record = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
    first = b"\x16\x03\x01\x40\x00\x01\x00\xff\xf0" + bytes(0x4000 - 4)
    with lab.refused("hello_too_large"), lab.tunnel("connect", ALLOWED) as sock:
        sent = 0
        try:
            for piece in [first, *[record] * 6400]:
                sock.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
    assert sent < 40 << 20, "the gateway read it all"
    assert growth(lab.gateway, before) < MOST_MEMORY


def test_threat_07_a_hello_that_comes_too_slowly(in_a_hurry: Callable[[str], Lab]) -> None:
    lab = in_a_hurry("egress_hello_timeout")
    head, hello = f"CONNECT {ALLOWED}:443 HTTP/1.1\r\nHost: {ALLOWED}:443\r\n\r\n", client_hello(ALLOWED)
    started = time.monotonic()
    with lab.refused("client_timeout"), lab.gateway.connect() as sock:
        # As much as tells TLS comes with the request, since who does not even say that has no alert.
        say(sock, [head.encode() + hello[:6], *bytewise(hello[6:26])], pause=0.1)
        assert read_exactly(sock, 12) == b"HTTP/1.1 200"
        while read_exactly(sock, 1) != b"\n" or read_exactly(sock, 2) != b"\r\n":
            pass
        assert read_alert(sock) == ACCESS_DENIED
    assert time.monotonic() - started < 8  # the usual timeout is ten


def test_threat_07_many_at_once_do_not_stop_the_others(lab: Lab, ca) -> None:
    before = lab.gateway.rss_kib()
    half = client_hello(ALLOWED, handshake_length=65_000, padding=40_000)
    tunnels = []
    try:
        for _ in range(100):
            tunnels.append(lab.tunnel("connect", ALLOWED))
            say(tunnels[-1], half)
        started = time.monotonic()
        with lab.tunnel("connect", ALLOWED) as sock, tls_client(sock, ALLOWED, ca.pem_path) as tls:
            assert request_over(tls, "GET", "/", {"Host": ALLOWED}).status == 200
        assert time.monotonic() - started < 8, "they were waited for, which may take ten seconds"
        assert growth(lab.gateway, before) < MOST_MEMORY
        for sock in tunnels:
            sock.shutdown(socket.SHUT_WR)
            assert read_alert(sock) == ACCESS_DENIED
    finally:
        for sock in tunnels:
            sock.close()


# --- 8 ---

WITH_ECH = {
    "encrypted_client_hello": client_hello(ALLOWED, ech=True),
    "as GREASE": client_hello(ALLOWED, ech=True, grease=True),
    "the inner kind": client_hello(ALLOWED, ech=b"\x01"),
    "encrypted_server_name of the older draft": client_hello(ALLOWED, extra_extensions=[(0xFFCE, b"x" * 40)]),
}


@pytest.mark.parametrize("hello", WITH_ECH.values(), ids=WITH_ECH.keys())
def test_threat_08_ech_is_judged_by_the_outer_name_and_logged(lab: Lab, hello: bytes) -> None:
    lines = len(lab.gateway.access_log())
    with lab.tunnel("connect", ALLOWED) as sock:
        say(sock, hello)
        assert read_exactly(sock, 1) in (b"\x16", b"\x15")
    entry = lab.gateway.wait_for_log(lambda one: one in lab.gateway.access_log()[lines:], ech=True)
    assert (entry["verdict"], entry["requested_server_name"]) == ("allow", ALLOWED)


def test_threat_08_ech_with_a_denied_outer_name(lab: Lab) -> None:
    with lab.refused("sni_mismatch") as seen:
        assert alert_for(lab.tunnel("connect", ALLOWED), client_hello(DENIED, ech=True)) == UNRECOGNIZED_NAME
    assert seen.entry["ech"] is True


def test_threat_08_ech_without_an_outer_name(lab: Lab) -> None:
    with lab.refused("sni_missing"):
        assert alert_for(lab.tunnel("connect", ALLOWED), client_hello(no_sni=True, ech=True)) == UNRECOGNIZED_NAME


@pytest.fixture
def strict(lab: Lab, shared_gateway, data_path: str, ca) -> Lab:
    """A gateway that refuses encrypted names."""
    rules = rule("allowed", ALLOWED, "443 https") + rule("bytes", BYTES, "443 tcp")
    lab.gateway = shared_gateway(rules, {"egress_ech": "deny"}, data_path=data_path)
    return lab


def test_threat_08_ech_can_be_refused(strict: Lab, ca) -> None:
    for hello in WITH_ECH.values():
        with strict.refused("ech_denied") as seen:
            assert alert_for(strict.tunnel("connect", ALLOWED), hello) == ACCESS_DENIED
        assert seen.entry["ech"] is True
    with strict.tunnel("connect", ALLOWED) as sock, tls_client(sock, ALLOWED, ca.pem_path) as tls:
        assert request_over(tls, "GET", "/", {"Host": ALLOWED}).status == 200


def test_threat_08_a_tcp_rule_does_not_look_at_the_hello(strict: Lab, origin) -> None:
    echo = origin.tcp("203.0.113.12", 443)
    hello = client_hello(BYTES, ech=True)
    with strict.tunnel("connect", BYTES) as sock:
        say(sock, hello)
        assert read_exactly(sock, len(hello)) == hello
    assert len(echo.connections) == 1
