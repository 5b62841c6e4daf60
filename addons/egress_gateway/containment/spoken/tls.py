"""TLS: a ClientHello for a name, and whether an alert or a ServerHello comes back (RFC 8446)."""

from __future__ import annotations

import ssl

from .reading import Meaning, Reading

PORT = 443

_ALERT, _HANDSHAKE, _SERVER_HELLO = 21, 22, 2
_RECORD_HEAD = 5
_ACCESS_DENIED, _INTERNAL_ERROR, _UNRECOGNIZED_NAME = 49, 80, 112
_ALERTS = {
    40: "handshake_failure",
    _ACCESS_DENIED: "access_denied",
    70: "protocol_version",
    _INTERNAL_ERROR: "internal_error",
    _UNRECOGNIZED_NAME: "unrecognized_name",
}
_MEANINGS = {
    _ACCESS_DENIED: Meaning.REFUSAL,
    _UNRECOGNIZED_NAME: Meaning.REFUSAL,
    _INTERNAL_ERROR: Meaning.FAILURE,
}


def client_hello(name: str) -> bytes:
    """The first bytes of a client that wants `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2", "http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def complete(data: bytes) -> bool:
    """Whether enough is there to know what the first record holds."""
    return len(data) >= _RECORD_HEAD + 2


def read(data: bytes) -> Reading:
    if not complete(data) or data[1] != 3 or data[0] not in (_ALERT, _HANDSHAKE):
        return Reading(Meaning.OTHER, "not TLS")
    if data[0] == _ALERT:
        alert = data[_RECORD_HEAD + 1]
        return Reading(_MEANINGS.get(alert, Meaning.OTHER), f"TLS alert {_ALERTS.get(alert, alert)}")
    words = "TLS ServerHello" if data[_RECORD_HEAD] == _SERVER_HELLO else "a TLS handshake"
    return Reading(Meaning.OTHER, words)
