"""An HTTP/2 origin: hypercorn in its own thread, over TLS (ALPN h2) or in the clear with prior knowledge."""

import asyncio
import contextlib
import hashlib
import json
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import hypercorn.asyncio
import hypercorn.config

from support.ca import Certificate
from support.origin.http1 import pseudo_random
from support.sockets import listening
from support.waiting import PATIENCE, eventually

type _Message = dict[str, Any]


@dataclass(slots=True)
class H2Request:
    """One request (stream) as hypercorn understood it; `authority` is its :authority or Host."""

    peer: tuple[str, int]
    http_version: str
    method: str
    authority: str
    target: str
    headers: list[tuple[str, str]]
    body_size: int = 0
    body_sha256: str = hashlib.sha256().hexdigest()
    complete: bool = False


@dataclass(slots=True)
class _App:
    """`/echo` tells as JSON what came, `/bytes/N` is as in `HttpOrigin`, all else is a line of text."""

    name: str
    requests: list[H2Request] = field(default_factory=list)

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"].decode()
        request = H2Request(
            peer=(scope["client"][0], scope["client"][1]),
            http_version=scope["http_version"],
            method=scope["method"],
            authority=dict(headers).get("host", ""),
            target=scope["raw_path"].decode() + (f"?{query}" if query else ""),
            headers=headers,
        )
        self.requests.append(request)
        await _read_body(request, receive)
        if scope["path"].startswith("/bytes/"):
            pieces = list(pseudo_random(int(scope["path"].removeprefix("/bytes/"))))
        elif scope["path"].startswith("/echo"):
            seen = {name: getattr(request, name) for name in ("method", "authority", "target", "headers")}
            pieces = [json.dumps(seen | {"size": request.body_size, "sha256": request.body_sha256}).encode()]
        else:
            pieces = [f"{scope['path']} of {self.name}\n".encode()]
        length = sum(map(len, pieces))
        head = [(b"content-length", str(length).encode()), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _read_body(request: H2Request, receive: Callable[[], Awaitable[_Message]]) -> None:
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        digest.update(message.get("body", b""))
        request.body_size += len(message.get("body", b""))
        more = message.get("more_body", False)
    request.body_sha256 = digest.hexdigest()
    request.complete = True


class _Config(hypercorn.config.Config):
    """Hypercorn's, with a record of the server names that clients ask for."""

    def __init__(self, names: list[str | None]) -> None:
        super().__init__()
        self._names = names

    def create_ssl_context(self) -> ssl.SSLContext | None:
        context = super().create_ssl_context()
        if context is not None:
            context.sni_callback = lambda _sock, name, _context: self._names.append(name)
        return context


class H2Origin:
    """`connections` are the peers that asked something; `server_names` has the SNI of every handshake."""

    def __init__(self, address: str, port: int = 0, *, certificate: Certificate | None = None, name: str = "") -> None:
        self._listening = listening(address, port)
        self.address = address
        self.port: int = self._listening.getsockname()[1]
        self.server_names: list[str | None] = []
        self._app = _App(name or f"{address}:{self.port}")
        self._certificate = certificate
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"h2 {address}:{self.port}", daemon=True)

    @property
    def requests(self) -> list[H2Request]:
        return self._app.requests

    @property
    def connections(self) -> list[tuple[str, int]]:
        return list(dict.fromkeys(request.peer for request in self.requests))

    def wait_for(self, count: int, timeout: float = PATIENCE) -> list[tuple[str, int]]:
        """The connections, as soon as there are `count` of them."""
        eventually(
            lambda: len(self.connections) >= count,
            lambda: f"{count} connections to {self._app.name}, saw {self.connections}",
            timeout,
        )
        return self.connections

    def wait_for_requests(self, count: int, timeout: float = PATIENCE) -> list[H2Request]:
        """The requests, as soon as `count` of them have arrived whole."""
        eventually(
            lambda: sum(request.complete for request in self.requests) >= count,
            lambda: f"{count} requests to {self._app.name}, saw {self.requests}",
            timeout,
        )
        return self.requests

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        else:
            self._listening.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        config = _Config(self.server_names)
        config.errorlog = None
        config.graceful_timeout = 0.1
        config.shutdown_timeout = 1.0
        config.bind = [f"fd://{self._listening.detach()}"]
        asyncio.set_event_loop(self._loop)
        with tempfile.TemporaryDirectory() as directory:
            if self._certificate is not None:
                chain, key = self._certificate.write(Path(directory))
                config.certfile, config.keyfile = str(chain), str(key)
            serving = hypercorn.asyncio.serve(self._app, config, shutdown_trigger=self._stop.wait)  # type: ignore[arg-type]  # any ASGI app will do
            self._loop.run_until_complete(serving)
