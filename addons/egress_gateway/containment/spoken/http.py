"""HTTP/1.1: a request for a name that no rule allows, and how the gateway's refusal looks (`docs/reasons.md`)."""

from __future__ import annotations

import re

from .reading import Meaning, Reading

PORT = 80

_REASON = re.compile(rb"^x-egress-reason:[ \t]*([a-z0-9_]{1,64})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_PROXY_STATUS = re.compile(rb"^proxy-status:[ \t]*egress[;, \t\r]", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_NOT_IN_ORDER = ("internal_error", "not_ready")


def request(name: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: gateway-check\r\nConnection: close\r\n\r\n".encode("ascii")


def complete(data: bytes) -> bool:
    """Whether the head of the response is there; the body does not matter."""
    return b"\r\n\r\n" in data


def is_signed(data: bytes) -> bool:
    """Whether the gateway says that the answer is its own."""
    head = data.partition(b"\r\n\r\n")[0]
    return bool(_REASON.search(head) and _PROXY_STATUS.search(head))


def read(data: bytes) -> Reading:
    status = _STATUS.match(data)
    if status is None:
        return Reading(Meaning.OTHER, "not HTTP")
    words = f"HTTP {status[1].decode()}"
    reason = _REASON.search(data.partition(b"\r\n\r\n")[0])
    if reason is None or not is_signed(data):
        return Reading(Meaning.OTHER, words)
    why = reason[1].decode()
    return Reading(Meaning.FAILURE if why in _NOT_IN_ORDER else Meaning.SIGNED, f"{words} {why}")
