"""The WebSocket opening handshake, both halves."""

import pytest

from egress_gateway.relay.http1 import parse_request, parse_response
from egress_gateway.relay.websocket import asks_for_websocket, why_not_accepted

# RFC 6455, 1.3
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def asked(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a.example", *lines, b"", b""])


GOOD = asked(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: " + KEY)

HANDSHAKES = {
    "as it should be": (GOOD, True),
    "in capitals, among other options": (asked(b"Upgrade: WebSocket", b"Connection: keep-alive, UPGRADE"), True),
    "without Connection": (asked(b"Upgrade: websocket"), False),
    "without Upgrade": (asked(b"Connection: Upgrade"), False),
    "to something else": (asked(b"Upgrade: h2c", b"Connection: Upgrade"), False),
    "to something else as well": (asked(b"Upgrade: websocket, h2c", b"Connection: Upgrade"), False),
    "to something else in a second field": (
        asked(b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade"), False,
    ),
    "with POST": (asked(b"Upgrade: websocket", b"Connection: Upgrade", first=b"POST / HTTP/1.1"), False),
    "in HTTP/1.0": (asked(b"Upgrade: websocket", b"Connection: Upgrade", first=b"GET / HTTP/1.0"), False),
}  # fmt: skip


@pytest.mark.parametrize(("head", "expected"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_what_asks_for_websocket(head: bytes, expected: bool) -> None:
    assert asks_for_websocket(parse_request(head)) is expected


def accepted(accept: bytes = ACCEPT, upgrade: bytes = b"websocket") -> bytes:
    return b"HTTP/1.1 101 OK\r\nUpgrade: %s\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % (
        upgrade,
        accept,
    )


def why_not(request: bytes, response: bytes) -> str:
    return why_not_accepted(parse_request(request), parse_response(response))


def test_the_answer_that_fits() -> None:
    assert why_not(GOOD, accepted()) == ""
    assert why_not(GOOD, accepted(upgrade=b"WebSocket")) == ""


ANSWERS = {
    "that nobody asked for": (asked(), accepted(), "did not ask"),
    "to another protocol": (GOOD, accepted(upgrade=b"h2c"), "another protocol"),
    "to two protocols": (GOOD, accepted(upgrade=b"websocket, h2c"), "another protocol"),
    "without Upgrade": (GOOD, b"HTTP/1.1 101 OK\r\n\r\n", "another protocol"),
    "with a wrong accept": (GOOD, accepted(b"AAAAMBiTxaQ9kYGzzhZRbK+xOo="), "wrong Sec-WebSocket-Accept"),
    "with an empty accept": (GOOD, accepted(b""), "wrong Sec-WebSocket-Accept"),
    "without an accept": (GOOD, b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\n\r\n", "wrong Sec-WebSocket-Accept"),
    "to no key": (asked(b"Upgrade: websocket", b"Connection: Upgrade"), accepted(), "exactly one"),
    "to two keys": (GOOD[:-2] + b"Sec-WebSocket-Key: x\r\n\r\n", accepted(), "exactly one"),
}


@pytest.mark.parametrize(("request_", "response", "text"), ANSWERS.values(), ids=ANSWERS)
def test_a_101(request_: bytes, response: bytes, text: str) -> None:
    assert text in why_not(request_, response)
