"""Reads what is judged of a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3) and nothing more.

Strict, since it stands between a hostile client and the verdict: lengths must add up exactly, the handshake type must
be client_hello, and the server name must be said once, as one host name. Sans I/O and in linear time: records are
reassembled as they come, and the hello is parsed once, when it is complete.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from egress_gateway.policy.hostname import Hostname, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason

_SERVER_NAME = 0
_ENCRYPTED = frozenset({0xFE0D, 0xFFCE})  # encrypted_client_hello, and encrypted_server_name of the draft before it
_LONGEST_RECORD = 2**14
_RECORD = struct.Struct(">BBBH")
_NUMBER = struct.Struct(">H")
_EXTENSION = struct.Struct(">HH")
_SESSION_ID = 2 + 32
"""Where legacy_session_id stands: after legacy_version and random."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    sni: Hostname | None
    """The server name in canonical form; None where the hello has no server_name extension."""
    ech: bool
    """Whether it carries encrypted_client_hello (or the older encrypted_server_name)."""
    size: int = field(default=0, compare=False)
    """Bytes of the buffer that it was read from, up to the end of its last record."""


class BadHello(ValueError):
    """The hello cannot be judged; `reason` says in which way, the text what is wrong."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class HelloReader:
    """Collects handshake bytes out of TLS records until the ClientHello is complete."""

    def __init__(self, limit: int = 65_536, start: int = 0) -> None:
        """`limit` is in bytes of the buffer, `start` where in it the hello begins."""
        self._limit = limit
        self._handshake = bytearray()
        self._position = start

    def read(self, buffer: bytes | bytearray) -> ClientHello | None:
        """Looks at `buffer`, all the bytes the client has sent so far, and consumes none.

        Returns None while the hello is incomplete. Raises `BadHello`.
        """
        while True:
            if len(buffer) > self._limit or len(self._handshake) > self._limit:
                raise BadHello(Reason.HELLO_TOO_LARGE, f"the ClientHello is larger than {self._limit} bytes")
            hello = self._complete()
            if hello is not None:
                return parse_client_hello(hello, self._position)
            header = buffer[self._position : self._position + 5]
            if len(header) < 5:
                return None
            kind, major, minor, length = _RECORD.unpack(header)
            if kind != 0x16 or major != 3 or minor > 3:
                raise BadHello(Reason.MALFORMED_HELLO, "a record inside the ClientHello is not a handshake record")
            if not 1 <= length <= _LONGEST_RECORD:
                raise BadHello(Reason.MALFORMED_HELLO, "a TLS record is empty or too long")
            end = self._position + 5 + length
            if len(buffer) < end:
                return None
            self._handshake += buffer[self._position + 5 : end]
            self._position = end

    def _complete(self) -> bytes | None:
        handshake = self._handshake
        if handshake and handshake[0] != 1:
            raise BadHello(Reason.MALFORMED_HELLO, "the first handshake message is not a ClientHello")
        if len(handshake) < 4:
            return None
        length = int.from_bytes(handshake[1:4])
        if length > self._limit:
            raise BadHello(Reason.HELLO_TOO_LARGE, f"the ClientHello is larger than {self._limit} bytes")
        if len(handshake) < 4 + length:
            return None
        if len(handshake) > 4 + length:
            raise BadHello(Reason.MALFORMED_HELLO, "bytes follow the ClientHello in its record")
        return bytes(handshake[4:])


def parse_client_hello(body: bytes, size: int = 0) -> ClientHello:
    """Parses the body of a ClientHello handshake message, found in `size` bytes. Raises `BadHello`."""
    try:
        at = _SESSION_ID + 1 + body[_SESSION_ID]
        suites = _NUMBER.unpack_from(body, at)[0]
        at += 2 + suites
        compressions = body[at]
        at += 1 + compressions
    except (IndexError, struct.error):
        raise _past_the_end() from None
    end = len(body)
    if at > end:
        raise _past_the_end()
    if not suites or not compressions:
        raise BadHello(Reason.MALFORMED_HELLO, "the ClientHello offers no cipher suite or compression method")
    if at == end:
        return ClientHello(sni=None, ech=False, size=size)
    if at + 2 > end or (extensions := _NUMBER.unpack_from(body, at)[0]) > end - at - 2:
        raise _past_the_end()
    if extensions < end - at - 2:
        raise BadHello(Reason.MALFORMED_HELLO, "bytes follow the extensions of the ClientHello")
    sni, kinds = _extensions(body, at + 2)
    return ClientHello(sni, not kinds.isdisjoint(_ENCRYPTED), size)


def _extensions(body: bytes, at: int) -> tuple[Hostname | None, set[int]]:
    """The server name among the extensions, which go from `at` to the end, and which extensions there are."""
    sni: Hostname | None = None
    seen: set[int] = set()
    end = len(body)
    while at < end:
        if at + 4 > end:
            raise _past_the_end()
        kind, length = _EXTENSION.unpack_from(body, at)
        at += 4 + length
        if at > end:
            raise _past_the_end()
        if kind in seen:
            reason = Reason.SNI_MALFORMED if kind == _SERVER_NAME else Reason.MALFORMED_HELLO
            raise BadHello(reason, "an extension stands twice in the ClientHello")
        seen.add(kind)
        if kind == _SERVER_NAME:
            sni = _server_name(body[at - length : at])
    return sni, seen


def _server_name(extension: bytes) -> Hostname:
    if len(extension) < 2 or (names := _NUMBER.unpack_from(extension)[0]) > len(extension) - 2:
        raise _past_the_end()
    if names == 0 or names < len(extension) - 2:
        raise BadHello(Reason.SNI_MALFORMED, "the server_name extension is empty or has bytes after its list")
    if names < 3 or (length := _NUMBER.unpack_from(extension, 3)[0]) > names - 3:
        raise _past_the_end()
    if extension[2] != 0 or length < names - 3:
        raise BadHello(Reason.SNI_MALFORMED, "the server_name extension does not hold exactly one host name")
    try:
        host = parse_host(extension[5:].decode("ascii"))
    except UnicodeDecodeError:
        raise BadHello(Reason.SNI_MALFORMED, "the server name is not ASCII") from None
    except MalformedHost as error:
        raise BadHello(Reason.SNI_MALFORMED, f"the server name is malformed: {error}") from None
    if not isinstance(host, str):
        # RFC 6066, section 3: literal addresses are not permitted in HostName.
        raise BadHello(Reason.SNI_MALFORMED, "the server name is an address")
    return host


def _past_the_end() -> BadHello:
    return BadHello(Reason.MALFORMED_HELLO, "a length in the ClientHello points past its end")
