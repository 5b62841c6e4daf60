"""The bytes of an HTTP/1 client, cut into requests by the relay's strict parser. Pure: bytes in, pieces out.

mitmproxy's own parser forwards much that two parsers could read differently. What comes out of here cannot be: a head
was parsed as RFC 9112 has it, and a chunked body is chunked anew, without extensions and trailers (mitmproxy's parser
gives up at trailers).
"""

from __future__ import annotations

from egress_gateway.gate.settings import Limits
from egress_gateway.relay.http1 import Body, Framing, head_end
from egress_gateway.relay.http1 import body_for as make_body
from egress_gateway.relay.stream import TooLarge

_LAST_CHUNK = b"0\r\n\r\n"


class HttpInput:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0
        self._body: Body | None = None
        self._chunked = False

    def __len__(self) -> int:
        """Bytes that have come and were not taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take_head(self) -> bytes | None:
        """The next header section with its start line and its empty line; None while it is incomplete.

        Raises `Malformed`, or `TooLarge`.
        """
        end = head_end(self._buffer, self._searched)
        if end is None:
            self._searched = len(self._buffer)
            if self._searched > self._limits.header_bytes:
                raise TooLarge
            return None
        if end > self._limits.header_bytes:
            raise TooLarge
        self._searched = 0
        return self._take(end)

    def begin_body(self, framing: Framing) -> None:
        """What follows the head just taken is a body."""
        self._body = make_body(framing, self._limits.header_bytes) if framing.has_body else None
        self._chunked = framing.chunked

    @property
    def in_body(self) -> bool:
        """Whether a body has begun and is not over."""
        return self._body is not None

    def take_body(self) -> tuple[bytes, int]:
        """All of the body that has come, framed for mitmproxy, and how many bytes of content that is.

        Raises `Malformed`. Afterwards `in_body` says whether more is to come.
        """
        if self._body is None:
            return b"", 0
        content = self._body.take(self._buffer)
        framed = b"%x\r\n%s\r\n" % (len(content), content) if self._chunked and content else content
        if self._body.done:
            self._body = None
            framed += _LAST_CHUNK if self._chunked else b""
        return framed, len(content)

    def drop_body(self) -> bytes:
        """Forgets the rest of the body and everything after it; the bytes that end a chunked one for mitmproxy."""
        self._body = None
        self._buffer.clear()
        return _LAST_CHUNK if self._chunked else b""

    def take_all(self) -> bytes:
        """Whatever has come, uncut."""
        return self._take(len(self._buffer))

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data
