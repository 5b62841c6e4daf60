"""An origin that serves a folder: what mirrors, repositories and pages are made of. What is not there is a 404."""

import http.server
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from support.origin.listener import Connection, Listener


class Fetched(NamedTuple):
    """One request. `target` is as it came, with its query."""

    host: str
    target: str
    status: int


class FileOrigin(Listener):
    """Adds `headers` to every answer. `fetched` is what was asked for, in the order of the answers."""

    def __init__(
        self, address: str, port: int = 0, *, folder: Path, headers: Mapping[str, str] | None = None, **listener: Any
    ) -> None:
        super().__init__(address, port, **listener)
        self.folder = folder
        self.headers = dict(headers or {})
        self.fetched: list[Fetched] = []

    def serve(self, connection: Connection) -> None:
        _Handler(self, connection)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a whole connection when it is made."""

    protocol_version = "HTTP/1.1"

    def __init__(self, origin: FileOrigin, connection: Connection) -> None:
        self._origin = origin
        super().__init__(
            connection.sock,
            connection.peer,
            None,  # type: ignore[arg-type]  # the server, of which it asks nothing
            directory=str(origin.folder),
        )

    def end_headers(self) -> None:
        for name, value in self._origin.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self._origin.fetched.append(Fetched(self.headers.get("Host", ""), self.path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """To nobody: `fetched` has it."""
