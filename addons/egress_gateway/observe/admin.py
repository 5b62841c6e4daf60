"""The gateway's own HTTP server: metrics, health, readiness. Read-only, and it knows no secret.

    /metrics   Prometheus' text format
    /healthz   200 while the event loop turns, for "is it to be restarted?"
    /readyz    200 when traffic may come, else 503 and why not, for "is it to be sent traffic?"

The rules of this file:

- Nothing of a request is used but its method, its path and whether it takes gzip. One request a connection.
- No client can keep others out: a head has `_HEAD_SECONDS` and `_MAX_HEAD` bytes, an answer
  `_ANSWER_SECONDS`, and where there are too many connections the oldest one gives way to the new one.
- The text format is made in a thread, one scrape at a time, so that a scrape holds up no traffic.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .listen import parse_listen
from .words import address

_LOG = logging.getLogger(__name__)
_HEAD_SECONDS = 5.0
_ANSWER_SECONDS = 20.0
_MAX_HEAD = 8 * 1024
_MAX_CONNECTIONS = 64

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]\Z")
_GZIP = re.compile(rb"^accept-encoding:[^\r\n]*\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?:[,\s]|$))", re.I | re.M)
_PLAIN = "text/plain; charset=utf-8"
_INDEX = b"egress gateway\n\n/metrics  for Prometheus\n/healthz  is it alive\n/readyz   may traffic come\n"

_Answer = tuple[HTTPStatus, str, bytes]


class AdminServer:
    """Serves on `listen` (`host:port`, `[v6]:port`, `:port` for all addresses; port 0 takes a free one).

    `exposition` gives the metrics and is called in a thread. `not_ready` gives the reason why no traffic
    should come, or None. Raises ValueError if `listen` cannot be understood.
    """

    def __init__(
        self, listen: str, exposition: Callable[[], bytes], not_ready: Callable[[], str | None] = lambda: None
    ) -> None:
        self._listen = listen
        self._host, self._port = parse_listen(listen)
        self._exposition = exposition
        self._not_ready = not_ready
        self._server: asyncio.Server | None = None
        self._scraper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._connections: dict[asyncio.StreamWriter, None] = {}

    @property
    def address(self) -> str:
        """`host:port` as bound; empty while it is not."""
        if self._server is None or not self._server.sockets:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        return address(host, port)

    async def start(self) -> None:
        """Binds. Raises OSError with a message that says what to do, e.g. where the port is taken."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host or None, self._port, limit=_MAX_HEAD, backlog=_MAX_CONNECTIONS
            )
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OSError(
                error.errno,
                f"cannot serve metrics on {self._listen}: {reason} "
                "(set egress_metrics_listen to another address, or to nothing to do without)",
            ) from None

    async def stop(self) -> None:
        """Closes the port and every connection."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None
        self._scraper.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MAX_CONNECTIONS:
            next(iter(self._connections)).transport.abort()
        self._connections[writer] = None
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await _read_head(reader)
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(await self._respond(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # too slow, or gone
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _respond(self, head: bytes | None) -> bytes:
        """The whole response; None is a head that is too large."""
        if head is None:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return _response((status, _PLAIN, b"too large\n"))
        line = head.partition(b"\r\n")[0]
        match = _REQUEST_LINE.match(line)
        if match is None:
            return _response((HTTPStatus.BAD_REQUEST, _PLAIN, b"not an HTTP/1.1 request for a path here\n"))
        method, target = match.groups()
        if method not in (b"GET", b"HEAD"):
            answer = (HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, b"GET and HEAD only\n")
            return _response(answer, "allow: GET, HEAD\r\n")
        body_wanted = method == b"GET"
        path = target.partition(b"?")[0]
        if path == b"/metrics":
            return await self._metrics(body_wanted, compress=_GZIP.search(head) is not None)
        return _response(self._page(path), body_wanted=body_wanted)

    def _page(self, path: bytes) -> _Answer:
        if path == b"/healthz":
            return HTTPStatus.OK, _PLAIN, b"ok\n"
        if path == b"/readyz":
            return self._readiness()
        if path == b"/":
            return HTTPStatus.OK, _PLAIN, _INDEX
        return HTTPStatus.NOT_FOUND, _PLAIN, b"not here; / lists what is\n"

    def _readiness(self) -> _Answer:
        try:
            reason = self._not_ready()
        except Exception:
            _LOG.exception("readiness could not be told")
            reason = "readiness could not be told; the log says why"
        if reason:
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"not ready: {reason}\n".encode("utf-8", "replace")
        return HTTPStatus.OK, _PLAIN, b"ready\n"

    async def _metrics(self, body_wanted: bool, *, compress: bool) -> bytes:
        # OpenMetrics is not offered: it has no room for a gauge `egress_connections` beside the counter
        # `egress_connections_total`, and Prometheus takes the text format from whoever sends it.
        loop = asyncio.get_running_loop()
        try:
            body = await loop.run_in_executor(self._scraper, self._scrape, compress)
        except Exception:
            _LOG.exception("the metrics could not be written")
            return _response((HTTPStatus.INTERNAL_SERVER_ERROR, _PLAIN, b"failed; the log says why\n"))
        extra = "content-encoding: gzip\r\n" if compress else ""
        return _response((HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, body), extra, body_wanted=body_wanted)

    def _scrape(self, compress: bool) -> bytes:
        text = self._exposition()
        return gzip.compress(text, compresslevel=1) if compress else text


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """The request's head, or None if it is too large."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None


def _response(answer: _Answer, extra: str = "", *, body_wanted: bool = True) -> bytes:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (body if body_wanted else b"")
