"""The WebSocket opening handshake, both halves (RFC 6455, 4). Pure."""

from __future__ import annotations

import base64
import hashlib

from .http1 import RequestHead, ResponseHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def asks_for_websocket(head: RequestHead) -> bool:
    """Whether a request asks to upgrade to websocket, and to nothing else."""
    return (
        head.tokens(b"upgrade") == [b"websocket"]
        and b"upgrade" in head.tokens(b"connection")
        and head.method == "GET"
        and head.minor == 1
    )


def why_not_accepted(request: RequestHead, response: ResponseHead) -> str:
    """Why a 101 is not the answer to the WebSocket handshake in `request`, or the empty string."""
    if not asks_for_websocket(request):
        return "101 to a request that did not ask for an upgrade"
    if response.tokens(b"upgrade") != [b"websocket"]:
        return "101 to another protocol than websocket"
    keys = request.values(b"sec-websocket-key")
    if len(keys) != 1:
        return "101 to a handshake without exactly one Sec-WebSocket-Key"
    expected = base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    if response.values(b"sec-websocket-accept") != [expected]:
        return "101 with a wrong Sec-WebSocket-Accept"
    return ""
