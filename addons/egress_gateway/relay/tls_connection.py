"""A verified TLS connection to a destination, as reader and writer in one: OpenSSL on the bare socket.

The rules of this file:

- Bytes go through OpenSSL straight to and from the kernel; there is no copy of ours on the way.
- Only the peer's closure alert is an end in peace; a bare FIN could come from anybody on the way (RFC 9112, 9.8).
- There is no half-close: the other direction ends with this one.
"""

from __future__ import annotations

import contextlib
import ssl

from .connection import Buffer, Connection
from .tls_sessions import Sessions


class TlsConnection(Connection):
    """Made by `wrap`. `ended_in_peace` says whether the peer has sent its closure alert."""

    __slots__ = ("_sessions", "_tls", "ended_in_peace")

    def __init__(self, sock: ssl.SSLSocket, sessions: Sessions) -> None:
        super().__init__(sock)
        self._tls = sock
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
                return
            except ssl.SSLWantReadError:
                await self._until_readable()
            except ssl.SSLWantWriteError:
                await self.connected()

    def _receive(self, most: int) -> bytes:
        try:
            data = self._tls.read(most)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):  # the latter: a key update that cannot be answered yet
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""
        if not data:
            self.ended_in_peace = True
        elif self._sessions is not None:
            # TLS 1.3 servers send it after the handshake, which who reads for the first time has passed.
            if self._tls.session is not None:
                self._sessions.put(self._tls.session)
            self._sessions = None
        return data

    def _has_no_more(self, data: bytes, most: int) -> bool:
        return not self._tls.pending()  # OpenSSL takes no more than one record out of the kernel

    def is_silent(self) -> bool:
        return not self._tls.pending() and super().is_silent()

    def _send(self, data: Buffer) -> int:
        sent = 0
        try:
            sent = self._tls.write(data)
            while sent < len(data):  # OpenSSL takes a record at a time
                sent += self._tls.write(memoryview(data)[sent:])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if not sent:
                raise BlockingIOError from None
        return sent

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        self.close()

    def _close(self) -> None:
        if not self._closed and self._error is None:
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()  # says the closure alert, and does not wait for the peer's
        super()._close()


def wrap(connection: Connection, context: ssl.SSLContext, server_name: str, sessions: Sessions) -> TlsConnection:
    """Takes over `connection`, on which nothing may be under way. The handshake is still to be done. Raises OSError or
    ValueError."""
    sock = context.wrap_socket(
        connection.hand_over(),
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
        server_hostname=server_name,
        session=sessions.take(),
    )
    return TlsConnection(sock, sessions)
