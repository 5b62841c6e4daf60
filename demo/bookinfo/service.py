"""What the services of the shop have in common: a place to listen, an answer for each path, and each other."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

PORT = 9080
_TIMEOUT = 15.0
"""Seconds for another service; a little longer than details waits for the Books API."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"


type Answering = Callable[[str], Answer | None]
"""From the path of a GET to the answer; None where there is nothing."""


def as_json(content: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())


def ask(service: str, path: str) -> dict[str, Any] | None:
    """What another service says, None where it cannot say: a page with a gap is better than no page."""
    connection = http.client.HTTPConnection(service, PORT, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        content = json.load(response)
        return content if response.status == 200 and isinstance(content, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def serve(name: str, answer: Answering) -> None:
    """Answers until SIGTERM, with a line for each request."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    address, _, port = os.environ.get("LISTEN", f"127.0.0.1:{PORT}").rpartition(":")
    server = _Server((address, int(port)), _handler(answer))
    print(f"{name} listens on port {server.socket.getsockname()[1]}", flush=True)
    server.serve_forever()


def _handler(answer: Answering) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = answer(self.path) or as_json({"error": "there is nothing here"}, 404)
            print(f"GET {self.path} {given.status} {self.headers.get('User-Agent', '-')}", flush=True)
            self.send_response(given.status)
            self.send_header("Content-Type", given.content_type)
            self.send_header("Content-Length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        def log_message(self, format: str, *args: Any) -> None:
            """The line above says it."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look up the name of the address
