"""What every hand-written origin shares: a listening thread, a thread a connection, TLS, and the record."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from support.ca import Certificate
from support.sockets import listening, stop_listening
from support.waiting import PATIENCE, eventually

_KEPT_BYTES = 256 * 1024
_HELLO_TIMEOUT = 10.0


class Connection:
    """One accepted connection: the first `_KEPT_BYTES` received (decrypted), and what TLS said before."""

    def __init__(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.sock = sock
        self.peer = peer
        self.opened_at = time.monotonic()
        self.received = bytearray()
        self.received_size = 0
        self.client_hello = b""  # the raw records of the hello, or what came in its place
        self.sni: str | None = None
        self.alpn: str | None = None
        self.tls_version: str | None = None
        self.client_certificate: bytes | None = None  # DER
        self.error: str | None = None  # how it ended, when not by an orderly close
        self.closed = threading.Event()

    def recv(self, size: int = 65536) -> bytes:
        data = self.sock.recv(size)
        self.received_size += len(data)
        self.received += data[: max(0, _KEPT_BYTES - len(self.received))]
        return data

    def close(self) -> None:
        """End the connection from another thread; its own thread then notices."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Listener:
    """Accepts on `address:port` from `start()` to `close()`; each connection gets a thread in `serve()`.

    `port=0` takes a free one. With `certificate` every connection is TLS; with `client_ca` a client must show
    a certificate issued by one in that PEM file.
    """

    def __init__(
        self,
        address: str,
        port: int = 0,
        *,
        certificate: Certificate | None = None,
        alpn: tuple[str, ...] = ("http/1.1",),
        client_ca: Path | None = None,
    ) -> None:
        self.address = address
        self.connections: list[Connection] = []
        self._handshake = threading.local()
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = certificate.server_context(alpn)
            self._context.sni_callback = self._on_sni
            if client_ca is not None:
                self._context.load_verify_locations(client_ca)
                self._context.verify_mode = ssl.CERT_REQUIRED
        self._listening = listening(address, port)
        self.port: int = self._listening.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def tls(self) -> bool:
        return self._context is not None

    def serve(self, connection: Connection) -> None:
        """Talk; returning closes the connection, OSError and EOFError are recorded in it."""
        raise NotImplementedError

    def wait_for(self, count: int, timeout: float = PATIENCE) -> list[Connection]:
        """The connections, as soon as there are `count` of them."""
        eventually(
            lambda: len(self.connections) >= count,
            lambda: f"{count} connections to {self.address}:{self.port}, saw {len(self.connections)}",
            timeout,
        )
        return self.connections

    def start(self) -> Self:
        self._spawn(self._accept)
        return self

    def close(self) -> None:
        self._closing = True
        stop_listening(self._listening)
        for connection in self.connections:
            connection.close()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, work: Callable[..., None], *args: Connection) -> None:
        name = f"{type(self).__name__} {self.address}:{self.port}"
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listening.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, (peer[0], peer[1]))
            self.connections.append(connection)
            self._spawn(self._run, connection)
            if self._closing:  # accepted while close() went through the list
                connection.close()

    def _run(self, connection: Connection) -> None:
        try:
            if self._context is not None:
                self._shake_hands(connection, self._context)
            self.serve(connection)
            _say_goodbye(connection.sock)
        except (OSError, EOFError) as error:  # ssl.SSLError is an OSError
            connection.error = f"{type(error).__name__}: {error}"
        finally:
            connection.sock.close()
            connection.closed.set()

    def _shake_hands(self, connection: Connection, context: ssl.SSLContext) -> None:
        connection.client_hello = peek_client_hello(connection.sock)
        self._handshake.connection = connection
        tls = context.wrap_socket(connection.sock, server_side=True)
        connection.sock = tls
        connection.alpn = tls.selected_alpn_protocol()
        connection.tls_version = tls.version()
        connection.client_certificate = tls.getpeercert(binary_form=True)

    def _on_sni(self, _socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._handshake.connection.sni = name  # runs in the thread that shakes hands


def peek_client_hello(sock: socket.socket, timeout: float = _HELLO_TIMEOUT) -> bytes:
    """The records that hold the next handshake message, left in the socket; fewer bytes when no more come."""
    deadline = time.monotonic() + timeout
    seen = b""
    while time.monotonic() < deadline:
        before, seen = len(seen), sock.recv(1 << 18, socket.MSG_PEEK)
        end = _end_of_first_message(seen)
        if not seen or end is not None:
            return seen[:end]
        if len(seen) == before:
            time.sleep(0.002)
    return seen


def _end_of_first_message(data: bytes) -> int | None:
    """Where the records that hold the first handshake message end; everything, when it is no handshake."""
    position, message = 0, b""
    while len(data) >= position + 5:
        if data[position] != 0x16:
            return len(data)
        end = position + 5 + int.from_bytes(data[position + 3 : position + 5])
        if len(data) < end:
            return None
        message += data[position + 5 : end]
        position = end
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4]):
            return position
    return len(data) if data[:1] not in (b"", b"\x16") else None


def _say_goodbye(sock: socket.socket) -> None:
    """TLS close_notify, without which a client cannot tell a whole answer from one that was cut."""
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(0.2)
        with contextlib.suppress(OSError, ValueError):
            sock.unwrap()
