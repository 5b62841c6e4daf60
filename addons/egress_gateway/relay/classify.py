"""What do the first bytes of a connection speak? Pure, and never a guess: what is not known is `OTHER`."""

from __future__ import annotations

import re

from egress_gateway.policy.request import Spoken

_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}\Z")
_METHOD_AND_SPACE = re.compile(rb"[A-Z][A-Z-]{0,31} ")
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HANDSHAKE_RECORD = 0x16


def classify(data: bytes | bytearray) -> Spoken | None:
    """What `data`, the first bytes of a client, begin; None while they are too few to know.

    TLS: a handshake record of version 3.0 to 3.3, which is all that RFC 8446 (5.1) lets a ClientHello travel in.
    HTTP/1: an upper-case method and a space. HTTP/2: its connection preface (RFC 9113, 3.4).
    """
    if not data:
        return None
    if data[0] == _HANDSHAKE_RECORD:
        if len(data) < 3:
            return None if len(data) == 1 or data[1] == 3 else Spoken.OTHER
        return Spoken.TLS if data[1] == 3 and data[2] <= 3 else Spoken.OTHER
    if data[:16] == _HTTP2_PREFACE[: min(len(data), 16)]:
        # "PRI" could still be some method of HTTP/1 until the version is seen.
        return Spoken.HTTP2 if len(data) >= 16 else None
    head = bytes(data[:33])
    if _METHOD_AND_SPACE.match(head):
        return Spoken.HTTP
    return None if _METHOD.match(head) and len(head) < 33 else Spoken.OTHER
