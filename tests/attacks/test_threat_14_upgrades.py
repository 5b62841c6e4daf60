"""Threat 14: ways to turn a request into a stream of bytes that nobody judges."""

import base64
import hashlib
from typing import Literal

import pytest
import wsproto
import wsproto.events

from support.gateway import read_reply
from support.http import client_hello, read_response, request_over
from support.lab import ALLOWED, ALLOWED_AT, DENIED, OTHER, Lab, Way, answered, say
from support.waiting import PATIENCE

KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
).decode()
WEBSOCKET = ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]

UPGRADES = {
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
    "h2c without naming it in Connection": ["Upgrade: h2c"],
    "h2c in capitals": ["Connection: upgrade", "Upgrade: H2C"],
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.2"],
    "HTTP/2.0": ["Connection: Upgrade", "Upgrade: HTTP/2.0"],
    "anything": ["Connection: Upgrade", "Upgrade: tcp"],
    "websocket and another": ["Connection: Upgrade", "Upgrade: websocket, h2c"],
    "another and websocket": ["Connection: Upgrade", "Upgrade: h2c, websocket"],
    "two headers": ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"],
    "connect-udp": ["Connection: Upgrade", "Upgrade: connect-udp"],
}


def request(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode()


@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES.keys())
def test_threat_14_upgrade_to_anything_but_websocket(lab: Lab, lines: list[str]) -> None:
    with lab.refused("upgrade_not_allowed"):
        reply = lab.gateway.raw(request(f"http://{ALLOWED}/", f"Host: {ALLOWED}", *lines) + b"raw bytes")
    answered(reply, 403, "upgrade_not_allowed")
    assert reply.ending != "quiet"


@pytest.mark.parametrize("port", [80, 443])
def test_threat_14_the_same_in_a_tunnel(lab: Lab, port: int) -> None:
    with lab.refused("upgrade_not_allowed", times=len(UPGRADES)):
        for lines in UPGRADES.values():
            with lab.tunnel("connect", ALLOWED, port) as sock:
                say(sock, request("/", f"Host: {ALLOWED}:{port}", *lines))
                answered(read_reply(sock), 403, "upgrade_not_allowed")


@pytest.mark.parametrize(("method", "version"), [("POST", "1.1"), ("GET", "1.0")])
def test_threat_14_a_handshake_that_is_none(lab: Lab, method: str, version: str) -> None:
    with lab.refused("upgrade_not_allowed"):
        answered(
            lab.gateway.raw(
                request(f"http://{ALLOWED}/ws", f"Host: {ALLOWED}", *WEBSOCKET, method=method, version=version)
            ),
            403,
            "upgrade_not_allowed",
        )


def test_threat_14_websocket_to_a_denied_host(lab: Lab) -> None:
    with lab.refused("no_rule"):
        answered(lab.gateway.raw(request(f"http://{DENIED}/ws", f"Host: {DENIED}", *WEBSOCKET)), 403, "no_rule")
    with lab.refused("host_mismatch"):
        answered(lab.gateway.raw(request(f"http://{ALLOWED}/ws", f"Host: {DENIED}", *WEBSOCKET)), 421, "host_mismatch")


CONNECTS = {
    "to a denied host": (f"{DENIED}:443", DENIED),
    "to the same host": (f"{ALLOWED}:80", ALLOWED),
    "with a path": ("/", ALLOWED),
    "with the URI of the same host": (f"http://{ALLOWED}/", ALLOWED),
    "with the URI of a denied host": (f"http://{DENIED}/", DENIED),
}


@pytest.mark.parametrize("way", ["connect", "socks5"])
@pytest.mark.parametrize(("target", "host"), CONNECTS.values(), ids=CONNECTS.keys())
def test_threat_14_connect_inside_a_tunnel(lab: Lab, way: Way, target: str, host: str) -> None:
    reasons = {"malformed_request": 400, "upgrade_not_allowed": 403, "connection_changed_host": 421}
    with lab.refused(*reasons) as seen, lab.tunnel(way, ALLOWED, 80) as sock:
        say(sock, request(target, f"Host: {host}", method="CONNECT") + client_hello(DENIED))
        reply = read_reply(sock)
    reason = seen.entry["reason"]
    answered(reply, reasons[reason], reason)


def test_threat_14_connect_on_a_connection_that_has_carried_requests(lab: Lab) -> None:
    """Explicit proxies allow that: it is judged as any CONNECT, and its tunnel is a new one."""
    with lab.gateway.connect() as sock:
        assert request_over(sock, "GET", f"http://{ALLOWED}/").status == 200
        with lab.refused("no_rule"):
            say(sock, request(f"{DENIED}:443", f"Host: {DENIED}:443", method="CONNECT"))
            assert read_response(sock, "CONNECT").status == 403


@pytest.fixture
def hostile(origin, dns):
    """`hostile(answers)` is what stands at b.wild.example:80."""
    dns.set("b.wild.example", ["203.0.113.14"])
    return lambda *answers: origin.scripted("203.0.113.14", 80, *answers, stays_open=True)


HEAD = b"HTTP/1.1 101 Switching Protocols\r\n"
SWITCHED = {
    "that nobody asked for": ([], HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    "that nobody asked for, without a word": ([], HEAD + b"\r\n"),
    "to another protocol": (
        WEBSOCKET,
        HEAD + f"Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode(),
    ),
    "with the wrong key": (
        WEBSOCKET,
        HEAD + f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {KEY}\r\n\r\n".encode(),
    ),
    "without a key": (WEBSOCKET, HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
}


@pytest.mark.parametrize(("lines", "answer"), SWITCHED.values(), ids=SWITCHED.keys())
def test_threat_14_a_101(lab: Lab, hostile, lines: list[str], answer: bytes) -> None:
    server = hostile(answer + b"raw bytes of the server")
    with lab.gateway.connect() as sock:
        say(sock, request("http://b.wild.example/ws", "Host: b.wild.example", *lines))
        reply = read_reply(sock, PATIENCE)
        answered(reply, 502, "upstream_malformed")
        assert reply.ending != "quiet"
        say(sock, b"raw bytes of the client")
    [connection] = server.wait_for(1)
    assert connection.closed.wait(PATIENCE)
    assert b"raw bytes" not in connection.received


def test_threat_14_an_answer_that_looks_like_a_tunnel(lab: Lab, hostile) -> None:
    """200 is no 101: what follows it is a body, and the client's bytes behind the request are a new request."""
    server = hostile(b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno")
    with lab.gateway.connect() as sock:
        say(sock, request("http://b.wild.example/ws", "Host: b.wild.example", *WEBSOCKET) + b"raw bytes\r\n\r\n")
        reply = bytes(read_reply(sock, PATIENCE))
    assert reply.startswith(b"HTTP/1.1 200 "), reply
    assert b"HTTP/1.1 400 " in reply
    assert b"raw bytes" not in server.wait_for(1)[0].received


@pytest.mark.parametrize("way", ["proxy", "connect", "socks5"])
@pytest.mark.parametrize("port", [80, 443])
def test_threat_14_websocket_passes_on_the_connection_that_was_judged(
    lab: Lab, way: Way | Literal["proxy"], port: int
) -> None:
    origin = lab.places.allowed if port == 80 else lab.places.allowed_tls
    connections = len(origin.connections)
    sock = lab.gateway.connect() if way == "proxy" else lab.tunnel(way, ALLOWED, port)
    authority = ALLOWED if port == 80 else f"{ALLOWED}:{port}"
    target = f"http://{authority}/ws" if way == "proxy" else "/ws"
    with sock:
        say(sock, request(target, f"Host: {authority}", *WEBSOCKET))
        head = read_response(sock)
        assert (head.status, head.header("sec-websocket-accept")) == (101, ACCEPT)
        websocket = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
        for text in ("one", f"GET http://{DENIED}/ HTTP/1.1\r\nHost: {DENIED}\r\n\r\n"):
            sock.sendall(websocket.send(wsproto.events.TextMessage(text)))
            websocket.receive_data(sock.recv(65536))
            assert [event.data for event in websocket.events() if isinstance(event, wsproto.events.TextMessage)] == [
                text
            ]
    assert len(origin.connections) == connections + 1
    assert origin.connections[connections].closed.wait(PATIENCE)
    assert {packet.dst for packet in lab.wire.packets if packet.is_syn and packet.dport in (80, 443)} == {ALLOWED_AT}


def test_threat_14_an_ordinary_request_does_not_follow_a_websocket_handshake(lab: Lab) -> None:
    """Once the handshake was refused by the origin, the connection is plain HTTP again, and judged."""
    with lab.gateway.connect() as sock:
        assert request_over(sock, "GET", f"http://{OTHER}/no", _pairs(WEBSOCKET)).status == 200
        with lab.refused("no_rule"):
            assert request_over(sock, "GET", f"http://{DENIED}/").status == 403


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
