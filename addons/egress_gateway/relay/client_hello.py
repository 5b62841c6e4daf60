"""Reads what is judged of a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3) and nothing more.

Strict, since it stands between a hostile client and the verdict: lengths must add up exactly, the handshake type must
be client_hello, and the server name must be said once, as one host name. Sans I/O and in linear time: records are
reassembled as they come, and the hello is parsed once, when it is complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from egress_gateway.policy.hostname import Hostname, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason

_SERVER_NAME = 0
_ENCRYPTED_CLIENT_HELLO = 0xFE0D
_ENCRYPTED_SNI = 0xFFCE  # the draft that ECH replaced
_LONGEST_RECORD = 2**14


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


class _Cursor:
    """Reads length-prefixed vectors; anything that does not fit is an error."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise BadHello(Reason.MALFORMED_HELLO, "a length in the ClientHello points past its end")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Cursor:
        return _Cursor(self.take(self.number(size)))

    def at_end(self) -> bool:
        return self._position == len(self._data)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)


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
                return replace(parse_client_hello(hello), size=self._position)
            header = buffer[self._position : self._position + 5]
            if len(header) < 5:
                return None
            if header[0] != 0x16 or header[1] != 3 or header[2] > 3:
                raise BadHello(Reason.MALFORMED_HELLO, "a record inside the ClientHello is not a handshake record")
            length = int.from_bytes(header[3:5])
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


def parse_client_hello(body: bytes) -> ClientHello:
    """Parses the body of a ClientHello handshake message. Raises `BadHello`."""
    hello = _Cursor(body)
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    if hello.vector(2).at_end() or hello.vector(1).at_end():  # cipher_suites, legacy_compression_methods
        raise BadHello(Reason.MALFORMED_HELLO, "the ClientHello offers no cipher suite or compression method")
    if hello.at_end():
        return ClientHello(sni=None, ech=False)
    extensions = hello.vector(2)
    if not hello.at_end():
        raise BadHello(Reason.MALFORMED_HELLO, "bytes follow the extensions of the ClientHello")
    sni: Hostname | None = None
    seen: set[int] = set()
    while not extensions.at_end():
        kind = extensions.number(2)
        if kind in seen:
            reason = Reason.SNI_MALFORMED if kind == _SERVER_NAME else Reason.MALFORMED_HELLO
            raise BadHello(reason, "an extension stands twice in the ClientHello")
        seen.add(kind)
        extension = extensions.vector(2)
        if kind == _SERVER_NAME:
            sni = _server_name(extension)
    return ClientHello(sni, ech=_ENCRYPTED_CLIENT_HELLO in seen or _ENCRYPTED_SNI in seen)


def _server_name(extension: _Cursor) -> Hostname:
    names = extension.vector(2)
    if not extension.at_end() or names.at_end():
        raise BadHello(Reason.SNI_MALFORMED, "the server_name extension is empty or has bytes after its list")
    kind = names.number(1)
    raw = names.vector(2).rest()
    if kind != 0 or not names.at_end():
        raise BadHello(Reason.SNI_MALFORMED, "the server_name extension does not hold exactly one host name")
    try:
        host = parse_host(raw.decode("ascii"))
    except UnicodeDecodeError:
        raise BadHello(Reason.SNI_MALFORMED, "the server name is not ASCII") from None
    except MalformedHost as error:
        raise BadHello(Reason.SNI_MALFORMED, f"the server name is malformed: {error}") from None
    if not isinstance(host, str):
        # RFC 6066, section 3: literal addresses are not permitted in HostName.
        raise BadHello(Reason.SNI_MALFORMED, "the server name is an address")
    return host
