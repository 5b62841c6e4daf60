"""The servers at the other end: a stand-in for the Books API, and servers that only count who comes by."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

BOOKS: dict[str, dict[str, Any]] = {
    "0486424618": {
        "title": "The Comedy of Errors",
        "authors": ["William Shakespeare"],
        "publisher": "Dover Publications",
        "publishedDate": "2002",
        "description": "Two pairs of twins, parted by a shipwreck, meet in one town and are taken for one another.",
        "industryIdentifiers": [
            {"type": "ISBN_10", "identifier": "0486424618"},
            {"type": "ISBN_13", "identifier": "9780486424613"},
        ],
        "pageCount": 64,
        "printType": "BOOK",
        "language": "en",
    }
}
"""By ISBN-10, in the shape of the Books API's `volumeInfo`."""


class Origin(ThreadingHTTPServer):
    """Counts its connections, and answers what its handler answers; over TLS where it has a context."""

    daemon_threads = True

    def __init__(
        self, address: str, port: int, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
    ) -> None:
        self.connections = 0
        self.server_names: list[str] = []
        """What clients said in TLS whom they want."""
        self._context = context
        if context is not None:
            context.sni_callback = lambda _socket, name, _context: self.server_names.append(name or "")
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name=f"origin {address}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look up the name of the address

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted = super().get_request()
        self.connections += 1
        return accepted

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # a client that leaves in the middle is not worth a line
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """The commentary is the demo's."""

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class GoogleApis(_Handler):
    """What the story needs of the Books API, and of the messaging service that is its neighbour."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        isbn = parse_qs(url.query).get("q", [""])[0].removeprefix("isbn:")
        if url.path != "/books/v1/volumes":
            self.answer(404, {"error": {"code": 404, "message": "there is nothing of this name"}})
            return
        found = [BOOKS[isbn]] if isbn in BOOKS else []
        items = [{"kind": "books#volume", "id": "demo", "volumeInfo": info} for info in found]
        self.answer(200, {"kind": "books#volumes", "totalItems": len(items), "items": items})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, {"name": "projects/bookinfo/messages/1"})


class Loot(_Handler):
    """What a client would get that got through to where it must not."""

    def do_GET(self) -> None:
        self.answer(200, {"loot": "you should not be able to read this"})
