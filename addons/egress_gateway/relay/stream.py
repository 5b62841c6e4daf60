"""Reading from one side of a connection, with push-back and limits.

Works on anything that has `await read(n) -> bytes` (a Connection, asyncio's StreamReader, mitmproxy_rs's Stream). What
was read and not yet consumed stays in `buffer`, so that whoever looked at the first bytes can hand the connection on
unchanged.
"""

from __future__ import annotations

from typing import Protocol

from .connection import CHUNK, Connection


class Reader(Protocol):
    async def read(self, n: int = -1, /) -> bytes: ...


class Writer(Protocol):
    """What the relay needs of a writer: a Connection, asyncio's StreamWriter or mitmproxy_rs's Stream."""

    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...
    async def drain(self) -> None: ...
    async def wait_closed(self) -> None: ...


def write_soon(writer: Writer, data: bytes) -> None:
    """Writes a whole message, together with those of other connections where that is possible."""
    if isinstance(writer, Connection):
        writer.write_soon(data)
    else:
        writer.write(data)


class TooLarge(Exception):
    """More bytes than allowed arrived before the end of what was being read."""


class Input:
    """One direction of a connection, buffered."""

    __slots__ = ("_reader", "buffer", "eof")

    def __init__(self, reader: Reader, already_read: bytes = b"") -> None:
        self._reader = reader
        self.buffer = bytearray(already_read)
        self.eof = False

    async def fill(self) -> bool:
        """Reads more into the buffer; False at the end of the stream. Raises OSError as the reader does."""
        if self.eof:
            return False
        data = await self._reader.read(CHUNK)
        if not data:
            self.eof = True
            return False
        self.buffer += data
        return True

    async def read(self, most: int = CHUNK) -> bytes:
        """At least one and at most `most` bytes; empty at the end of the stream."""
        if self.buffer:
            data = bytes(self.buffer[:most])
            del self.buffer[:most]
            return data
        if self.eof:
            return b""
        data = await self._reader.read(min(most, CHUNK))
        self.eof = not data
        return data

    def take(self) -> bytes:
        """All that was read and not consumed, for who reads the socket itself from here on."""
        data, self.buffer = bytes(self.buffer), bytearray()
        return data + self._reader.take_unread() if isinstance(self._reader, Connection) else data
