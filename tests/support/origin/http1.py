"""An HTTP/1.1 origin written by hand, so that a test sees each byte of a head and when a body came.

| route | answer |
|---|---|
| `/bytes/N` | N pseudo-random bytes; `sha256_of_pseudo_random(N)` knows their digest |
| `/chunked` | a chunked body in five chunks and a trailer |
| `/continue` | the 100 comes after `let_continue.set()`; `Request.body_came_early`: the body did not wait |
| `/echo` | JSON: method, target, headers, size and SHA-256 of the body |
| `/slow` | one byte every 0.1 s, ten of them |
| `/status/NNN` | that status |
| `/ws` | WebSocket echo |
| a path in `answers` | those bytes as they stand |
| anything else | 200 and a line of text |

Every request's body is read to its end and recorded as size, SHA-256 and first bytes, whatever the method.
"""

import hashlib
import http
import json
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import wsproto
import wsproto.events

from support.origin.listener import Connection, Listener
from support.waiting import PATIENCE, eventually

_HEAD_LIMIT = 4 << 20
_KEPT_BODY = 64 * 1024
_BLOCK = hashlib.shake_256(b"pseudo random").digest(64 * 1024 - 8)


def pseudo_random(size: int) -> Iterator[bytes]:
    """`size` bytes in pieces; no two pieces alike, so that a swapped or doubled one changes the digest."""
    number = 0
    while size > 0:
        piece = (number.to_bytes(8) + _BLOCK)[:size]
        yield piece
        size -= len(piece)
        number += 1


def sha256_of_pseudo_random(size: int) -> str:
    digest = hashlib.sha256()
    for piece in pseudo_random(size):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(slots=True)
class Request:
    """One request as it arrived. `head` is raw, with the blank line; names in `headers` keep their case."""

    connection: Connection
    head: bytes
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""  # its first _KEPT_BODY bytes
    body_size: int = 0
    body_sha256: str = hashlib.sha256().hexdigest()
    body_came_early: bool | None = None  # only for Expect: 100-continue
    frames: list[bytes] = field(default_factory=list)  # WebSocket messages
    complete: bool = False  # the body has been read to its end

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of this header."""
        return next(iter(self.all(name)), None)

    @property
    def path(self) -> str:
        """Without scheme, authority and query."""
        after_scheme = self.target.partition("://")[2] or self.target
        return "/" + after_scheme.partition("/")[2].partition("?")[0]


class _Route(NamedTuple):
    prefix: str
    answer: Callable[["HttpOrigin", "_Stream", Request], None]


class HttpOrigin(Listener):
    """See the module's text. `requests` are those whose heads have arrived, over all connections."""

    def __init__(self, address: str, port: int = 0, *, name: str = "", **listener: Any) -> None:
        super().__init__(address, port, **listener)
        self.name = name or f"{address}:{self.port}"
        self.requests: list[Request] = []
        self.answers: dict[str, bytes] = {}
        self.let_continue = threading.Event()

    def wait_for_requests(self, count: int, timeout: float = PATIENCE) -> list[Request]:
        """The requests, as soon as `count` of them have arrived whole."""
        eventually(
            lambda: sum(request.complete for request in self.requests) >= count,
            lambda: f"{count} requests to {self.name}, saw {[r.head for r in self.requests]}",
            timeout,
        )
        return self.requests

    def serve(self, connection: Connection) -> None:
        stream = _Stream(connection)
        while (head := stream.head()) is not None:
            request = _parse(connection, head)
            self.requests.append(request)
            if request.path == "/ws" and (request.header("upgrade") or "").lower() == "websocket":
                request.complete = True
                _websocket(stream, request)
                return
            if (request.header("expect") or "").lower() == "100-continue":
                self._continue(stream, request)
            _read_body(stream, request)
            route = next(route for route in _ROUTES if request.path.startswith(route.prefix))
            route.answer(self, stream, request)
            if (request.header("connection") or "").lower() == "close" or request.version == "HTTP/1.0":
                return

    def _continue(self, stream: "_Stream", request: Request) -> None:
        if request.path == "/continue":
            self.let_continue.wait(10)
        request.body_came_early = stream.has_more()
        stream.connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer_text(self, stream: "_Stream", request: Request) -> None:
        if request.path in self.answers:
            stream.connection.sock.sendall(self.answers[request.path])
            return
        stream.respond(request, 200, f"{request.path} of {self.name}\n".encode())

    def _answer_echo(self, stream: "_Stream", request: Request) -> None:
        seen = {
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "size": request.body_size,
            "sha256": request.body_sha256,
        }
        stream.respond(request, 200, json.dumps(seen).encode(), "application/json")

    def _answer_bytes(self, stream: "_Stream", request: Request) -> None:
        size = int(request.path.removeprefix("/bytes/"))
        stream.respond_head(200, ("content-length", str(size)), ("content-type", "application/octet-stream"))
        if request.method != "HEAD":
            for piece in pseudo_random(size):
                stream.connection.sock.sendall(piece)

    def _answer_chunked(self, stream: "_Stream", _request: Request) -> None:
        stream.respond_head(200, ("transfer-encoding", "chunked"), ("trailer", "x-checked"))
        for number in range(5):
            chunk = f"chunk {number}\n".encode()
            stream.connection.sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        stream.connection.sock.sendall(b"0\r\nx-checked: yes\r\n\r\n")

    def _answer_slowly(self, stream: "_Stream", _request: Request) -> None:
        stream.respond_head(200, ("content-length", "10"))
        for _ in range(10):
            time.sleep(0.1)
            stream.connection.sock.sendall(b".")

    def _answer_status(self, stream: "_Stream", request: Request) -> None:
        stream.respond(request, int(request.path.removeprefix("/status/")), b"")


_ROUTES = (
    _Route("/bytes/", HttpOrigin._answer_bytes),
    _Route("/chunked", HttpOrigin._answer_chunked),
    _Route("/echo", HttpOrigin._answer_echo),
    _Route("/slow", HttpOrigin._answer_slowly),
    _Route("/status/", HttpOrigin._answer_status),
    _Route("/", HttpOrigin._answer_text),
)


class _Stream:
    """Bytes of a connection with what has been read too far."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def head(self) -> bytes | None:
        """Up to and with the first blank line, whatever its line ends; None for an orderly end before one."""
        while True:
            ends = [at + len(end) for end in (b"\r\n\r\n", b"\n\n") if (at := self._buffer.find(end)) >= 0]
            if ends:
                return self.take(min(ends))
            if len(self._buffer) > _HEAD_LIMIT:
                raise EOFError("a head without end")
            if not self._fill():
                return None

    def line(self) -> bytes:
        while (at := self._buffer.find(b"\n")) < 0:
            self._need()
        return self.take(at + 1).rstrip(b"\r\n")

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._need()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def pieces(self, size: int) -> Iterator[bytes]:
        """`size` bytes as they come."""
        while size > 0:
            if not self._buffer:
                self._need()
            piece = self.take(min(size, len(self._buffer)))
            size -= len(piece)
            yield piece

    def rest(self) -> bytes:
        """What is here already, or the next bytes; empty at the end."""
        if not self._buffer:
            self._fill()
        return self.take(len(self._buffer))

    def has_more(self) -> bool:
        """Whether bytes are waiting right now."""
        if self._buffer:
            return True
        pending = getattr(self.connection.sock, "pending", int)()
        return bool(pending or select.select([self.connection.sock], [], [], 0.05)[0])

    def respond(self, request: Request, status: int, body: bytes, kind: str = "text/plain") -> None:
        bodiless = status in (204, 304) or status < 200
        length = [] if bodiless else [("content-length", str(len(body)))]
        self.respond_head(status, *length, ("content-type", kind))
        if request.method != "HEAD" and not bodiless:
            self.connection.sock.sendall(body)

    def respond_head(self, status: int, *headers: tuple[str, str]) -> None:
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        self.connection.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _fill(self) -> bool:
        data = self.connection.recv()
        self._buffer += data
        return bool(data)

    def _need(self) -> None:
        if not self._fill():
            raise EOFError("closed in the middle of a message")


def _parse(connection: Connection, head: bytes) -> Request:
    first, *lines = head.decode("latin-1").splitlines()
    method, target, version = [*first.split(" ", 2), "", "", ""][:3]
    headers = [(name, value.strip()) for line in lines if line for name, _, value in [line.partition(":")]]
    return Request(connection, head, method, target, version, headers)


def _read_body(stream: _Stream, request: Request) -> None:
    digest = hashlib.sha256()
    for piece in _body(stream, request):
        digest.update(piece)
        request.body_size += len(piece)
        request.body += piece[: max(0, _KEPT_BODY - len(request.body))]
    request.body_sha256 = digest.hexdigest()
    request.complete = True


def _body(stream: _Stream, request: Request) -> Iterator[bytes]:
    if (request.header("transfer-encoding") or "").lower() != "chunked":
        yield from stream.pieces(int(request.header("content-length") or 0))
        return
    while size := int(stream.line().partition(b";")[0], 16):
        yield from stream.pieces(size)
        stream.line()
    while stream.line():  # trailers
        pass


def _websocket(stream: _Stream, request: Request) -> None:
    protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    data = request.head
    while data:
        protocol.receive_data(data)
        for event in protocol.events():
            reply = _websocket_reply(event, request)
            if reply is not None:
                stream.connection.sock.sendall(protocol.send(reply))
            if isinstance(event, wsproto.events.CloseConnection):
                return
        data = stream.rest()


def _websocket_reply(event: wsproto.events.Event, request: Request) -> wsproto.events.Event | None:
    match event:
        case wsproto.events.Request():
            return wsproto.events.AcceptConnection()
        case wsproto.events.Ping() | wsproto.events.CloseConnection():
            return event.response()
        case wsproto.events.Message():
            data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            request.frames.append(data)
            return type(event)(data=event.data, message_finished=event.message_finished)
        case _:
            return None
