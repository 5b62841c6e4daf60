"""A verified TLS connection to a destination, as reader and writer in one: OpenSSL above the bare socket.

The rules of this file:

- OpenSSL works on memory. Left alone with the socket it reads every record in two pieces, and an exception says that
  there is nothing; here one read takes what is there, and what it got tells whether there is more.
- What is kept is bounded: no more is taken out of the kernel before OpenSSL has used up what it was given.
- Only the peer's closure alert is an end in peace; a bare FIN could come from anybody on the way (RFC 9112, 9.8).
- There is no half-close: the other direction ends with this one.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from .connection import CHUNK, Buffer, Connection
from .tls_sessions import Sessions

_READS_WITHOUT_DATA = 8
"""Records that carry no data are rare, and read without anybody else's turn."""
_MOST_ANSWERS = 64
"""Records that wait to be sent. A host can ask for one with each of its own (RFC 8446, 4.6.3) and take none."""
_RECORD = 1 << 14
"""What one record holds at most (RFC 8446, 5.1), and the most that OpenSSL gives at a time. Python makes room for all
that is asked for before it asks OpenSSL."""
_HEADER = 5
"""Bytes before each record, the last two of which say how many follow (RFC 8446, 5.1)."""


class TlsConnection(Connection):
    """Made by `wrap`. `ended_in_peace` says whether the peer has sent its closure alert."""

    __slots__ = (
        "_dry", "_has_more", "_header", "_incoming", "_left", "_offered", "_outgoing", "_sessions", "_tls",
        "ended_in_peace",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        sessions: Sessions,
        *,
        offered: bool,
    ) -> None:
        """`offered` says that a session was."""
        super().__init__(sock)
        self._offered = offered
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._has_more = False
        """Whether OpenSSL may have data to give without being given more."""
        self._dry = False
        """Whether that is all there is: the kernel has nothing, and will tell."""
        self._header = b""
        """Of a record of which not even the header has come whole."""
        self._left = 0
        """Bytes of a record that are still to come."""
        self._sessions: Sessions | None = sessions
        self.ended_in_peace = False

    @property
    def resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return bool(self._tls.session_reused)

    async def handshake(self) -> None:
        """Verifies the peer. Raises ssl.SSLError or OSError; the connection must not be used then."""
        while True:
            try:
                self._tls.do_handshake()
                self._has_more = self._incoming.pending > 0
                return
            except ssl.SSLWantReadError:
                pass
            finally:
                self._send_records()  # an alert as well, where it has failed
            await self.drain()
            while not self._take_records():
                self._watch()
                await self._waiting()

    def _take_records(self) -> bool:
        """Gives OpenSSL what the kernel has; returns whether that was anything, the end of the stream included."""
        try:
            records = self.sock.recv(CHUNK)
        except BlockingIOError:
            self._readable = False
            return False
        if len(records) < CHUNK and not self._unsure:
            self._readable = not records
        if records:
            self._incoming.write(records)
            self._follow(records)
        else:
            self._incoming.write_eof()
        self._has_more = True
        return True

    def _follow(self, records: bytes) -> None:
        """Notes how much of the last record is still to come."""
        if self._header:
            records = self._header + records
        at = self._left
        while at + _HEADER <= len(records):
            at += _HEADER + (records[at + 3] << 8) + records[at + 4]
        self._left = max(0, at - len(records))
        self._header = records[at:]

    def _send_records(self) -> None:
        if self._outgoing.pending:
            Connection.write(self, self._outgoing.read())

    def _answer(self) -> None:
        """Sends what OpenSSL has to say of its own accord, such as the answer to a key update. Raises OSError."""
        if self._unsent is not None and len(self._unsent) > _MOST_ANSWERS:
            raise ConnectionAbortedError("the host asks for TLS records and takes none")
        self._send_records()

    def _receive(self, most: int) -> bytes:
        for _ in range(_READS_WITHOUT_DATA):
            if self._has_more:
                data = self._decrypt(most)
                if data is not None:
                    return data
            if not (self._readable and self._take_records()):
                raise BlockingIOError
        raise ConnectionAbortedError("the host sends TLS records without data")

    def _decrypt(self, most: int) -> bytes | None:
        """What OpenSSL has, empty at the end; None where it has nothing."""
        try:
            data = self._tls.read(min(most, _RECORD))
        except ssl.SSLWantReadError:
            self._has_more = False
            self._answer()
            return None
        except ssl.SSLEOFError:
            return b""
        if not data:
            self.ended_in_peace = True
            return data
        if self._sessions is not None:
            # TLS 1.3 servers send it after the handshake, which who reads for the first time has passed.
            self._remember(self._sessions)
            self._sessions = None
        # A read for as much as a record holds leaves nothing of it.
        self._has_more = self._incoming.pending > 0 or (most < _RECORD and self._tls.pending() > 0)
        if self._has_more != self._readable:
            self._note_what_is_left()
        if self._outgoing.pending:
            self._answer()
        return data

    def _remember(self, sessions: Sessions) -> None:
        if self._offered and not self._tls.session_reused:
            sessions.refused()
        if sessions.wants():
            session = self._tls.session
            if session is not None:
                sessions.put(session)

    def _note_what_is_left(self) -> None:
        if self._has_more:
            self._readable = self._dry = True
        elif self._dry:
            self._readable = self._dry = False

    def changed(self, descriptor: int, event: int) -> None:
        self._dry = False
        super().changed(descriptor, event)

    def is_silent(self) -> bool:
        return not (self._has_more or self._left or self._header) and super().is_silent()

    def write(self, data: Buffer) -> None:
        if self._encrypt(data):
            self._send_records()

    def write_soon(self, data: bytes) -> None:
        if self._encrypt(data):
            Connection.write_soon(self, self._outgoing.read())

    def _encrypt(self, data: Buffer) -> bool:
        """Whether there are records to send now."""
        if self._closed or self._ends or self._error is not None or not data:
            return False
        try:
            written = self._tls.write(data)
            while written < len(data):  # OpenSSL takes a record at a time
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:
            self._fail(error)
            return False
        return True

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        self.close()

    def _close(self) -> None:
        if not self._closed and self._error is None:
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()  # says the closure alert, and does not wait for the peer's
            with contextlib.suppress(OSError):
                self.sock.send(self._outgoing.read())
        super()._close()


def wrap(connection: Connection, context: ssl.SSLContext, server_name: str, sessions: Sessions) -> TlsConnection:
    """Takes over `connection`, on which nothing may be under way. The handshake is still to be done. Raises OSError or
    ValueError."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = sessions.take()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=server_name, session=session)
    return TlsConnection(connection.hand_over(), tls, incoming, outgoing, sessions, offered=session is not None)
