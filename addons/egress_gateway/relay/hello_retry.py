"""A destination may ask for a second ClientHello (HelloRetryRequest, RFC 8446, 4.1.4), and that one names a host again.

It must say the same as the first, or a client could be judged by one name and served by another. Until the destination
has answered, nothing of the client passes but its first hello. Pure, for both data paths: whole buffers in, answers
out.
"""

from __future__ import annotations

from egress_gateway.policy.reason import Reason

from .client_hello import BadHello, ClientHello, HelloReader

_HANDSHAKE, _CHANGE_CIPHER_SPEC, _APPLICATION_DATA = 22, 20, 23
_SERVER_HELLO = 2
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_ENOUGH = 4 + 2 + 32
"""Handshake header, version and random."""


def asks_to_retry(buffer: bytes | bytearray) -> bool | None:
    """Whether `buffer`, all that the destination has sent so far, begins with a HelloRetryRequest; None: too early."""
    handshake = bytearray()
    position = 0
    while len(handshake) < _ENOUGH:
        if handshake and handshake[0] != _SERVER_HELLO:
            return False
        header = buffer[position : position + 5]
        if header and header[0] != _HANDSHAKE:
            return False
        if len(header) < 5:
            return None
        end = position + 5 + int.from_bytes(header[3:5])
        handshake += buffer[position + 5 : end]
        if len(buffer) < end and len(handshake) < _ENOUGH:
            return None
        position = end
    return handshake[0] == _SERVER_HELLO and bytes(handshake[6:_ENOUGH]) == _RETRY_RANDOM


class SecondHello:
    """Reads the second ClientHello. What may stand before it (change_cipher_spec, early data) is passed over."""

    def __init__(self, first: ClientHello, limit: int = 65_536) -> None:
        self._first = first
        self._limit = limit
        self._position = 0
        self._reader: HelloReader | None = None

    def read(self, buffer: bytes | bytearray) -> bool:
        """Looks at `buffer`, all that the client has sent after its first hello; True when the second is there.

        Raises `BadHello` where it cannot be judged, or does not say what the first one said.
        """
        if self._reader is None and not self._skip(buffer):
            return False
        assert self._reader is not None
        hello = self._reader.read(buffer)
        if hello is None:
            return False
        if hello.sni != self._first.sni:
            raise BadHello(Reason.SNI_MISMATCH, "the second ClientHello names another host than the first")
        if hello.ech and not self._first.ech:
            raise BadHello(Reason.ECH_DENIED, "only the second ClientHello carries encrypted_client_hello")
        return True

    def _skip(self, buffer: bytes | bytearray) -> bool:
        while len(header := buffer[self._position : self._position + 5]) == 5:
            if header[0] not in (_CHANGE_CIPHER_SPEC, _APPLICATION_DATA):
                self._reader = HelloReader(self._limit, start=self._position)
                return True
            self._position += 5 + int.from_bytes(header[3:5])
            if self._position > self._limit:
                raise BadHello(Reason.HELLO_TOO_LARGE, "too much stands before the second ClientHello")
        return False
