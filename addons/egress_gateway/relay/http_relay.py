"""HTTP/1.1 from one client, request by request: read a head, decide, relay the bodies, go on.

Every request is judged on its own, whatever was allowed before it on the same connection, and travels on a connection
to the destination that *it* was allowed to reach. Bodies are streamed; nothing is read ahead of the verdict but the
head.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass

from egress_gateway.gate.live import LiveConnection
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from . import forward
from .client import Client, abort
from .http1 import (
    Body,
    Framing,
    Malformed,
    RequestHead,
    ResponseHead,
    UntilCloseBody,
    body_for,
    head_end,
    parse_request,
    parse_response,
    request_framing,
    response_framing,
)
from .refuse import refuse_http
from .stream import Input, TooLarge, Writer
from .target import Asked, NotUnderstood, Target, read_target
from .tunnel import run_tunnel
from .upstream import Failed, PoolKey, Upstream, UpstreamPool, connect
from .upstream_tls import TlsContexts

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_CONTINUE = 100
_SWITCHING_PROTOCOLS = 101


class _UpstreamBroken(Exception):
    """The destination's side ended the exchange; `reason` says how."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(slots=True)
class _Job:
    """One allowed request on its way."""

    head: RequestHead
    asked: Asked
    verdict: Verdict
    framing: Framing
    websocket: bool
    exchange: Exchange
    keep_alive: bool
    answered: bool = False
    """Whether any part of a final response has gone to the client."""
    unread: bool = False
    """Whether the client may still be sending a body that nobody will read, so that no request can follow it."""


class HttpRelay:
    """Serves the requests of one client connection."""

    def __init__(self, client: Client, target: Target, contexts: TlsContexts) -> None:
        self._client = client
        self._gate = client.gate
        self._target = target
        self._contexts = contexts
        self._pool = UpstreamPool(client.gate)

    def close(self) -> None:
        self._pool.close()

    async def serve(self, head: RequestHead) -> bool:
        """Answers the request that begins with `head`; returns whether the connection may carry another."""
        exchange = self._client.begin()
        try:
            return await self._serve(head, exchange)
        finally:
            self._gate.finish(exchange)

    async def _serve(self, head: RequestHead, exchange: Exchange) -> bool:
        exchange.protocol = f"HTTP/1.{head.minor}"
        exchange.method, exchange.path = head.method, head.target
        asked = read_target(head, self._target)
        try:
            framing = request_framing(head)
        except Malformed as error:
            asked, framing = NotUnderstood(Reason.MALFORMED_REQUEST, str(error)), Framing()
        if isinstance(asked, NotUnderstood):
            exchange.detail = asked.detail
            exchange.verdict = self._gate.refused(asked.reason, "http")
            await refuse_http(self._client, exchange, accept=_accept(head))
            return False
        request = asked.request
        exchange.path = asked.path
        exchange.host, exchange.port = request.host, request.port
        exchange.authority = format_authority(request.host, request.port)
        verdict, websocket = self._judge(head, asked, framing)
        exchange.verdict = verdict
        keep_alive = _wants_keep_alive(head)
        if not verdict.allowed:
            keep_alive = keep_alive and not framing.has_body and not head.values(b"upgrade")
            await self._refuse(head, request, exchange, keep_alive)
            return keep_alive
        if forward.hops_left(head) == 0:
            return await self._answer_as_last_hop(exchange, keep_alive and not framing.has_body)
        if verdict.treatment is Treatment.ORIGINATE:
            exchange.tls_mode = "originate"
        job = _Job(head, asked, verdict, framing, websocket, exchange, keep_alive)
        try:
            return await self._relay(job)
        except OSError as error:
            exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
            exchange.detail = exchange.detail or f"client gone: {error.strerror or type(error).__name__}"
            return False

    def _judge(self, head: RequestHead, asked: Asked, framing: Framing) -> tuple[Verdict, bool]:
        upgrade = head.tokens(b"upgrade")
        websocket = upgrade == [b"websocket"] and b"upgrade" in head.tokens(b"connection")
        websocket = websocket and head.method == "GET" and head.minor == 1 and not framing.has_body
        verdict = self._gate.decide(asked.request, "http")
        if not verdict.allowed:
            return verdict, False
        if (upgrade and not websocket) or head.method == "CONNECT":
            return self._gate.refused(Reason.UPGRADE_NOT_ALLOWED, "http"), False
        if asked.wants_tls and verdict.treatment is not Treatment.ORIGINATE:
            return self._gate.refused(Reason.PROTOCOL_NOT_ALLOWED, "http"), False
        return verdict, websocket

    async def _refuse(self, head: RequestHead, request: Request, exchange: Exchange, keep_alive: bool) -> None:
        await refuse_http(
            self._client,
            exchange,
            request,
            accept=_accept(head),
            head_only=head.method == "HEAD",
            keep_alive=keep_alive,
        )

    async def _answer_as_last_hop(self, exchange: Exchange, keep_alive: bool) -> bool:
        """Max-Forwards is used up: the request ends here (RFC 9110, 7.6.2). Requests are not echoed to their sender."""
        self._gate.allowed_again(exchange.verdict, "http")
        exchange.response_code = 200 if exchange.method == "OPTIONS" else 405
        phrase = b"OK" if exchange.method == "OPTIONS" else b"Method Not Allowed"
        connection = b"keep-alive" if keep_alive else b"close"
        head = b"HTTP/1.1 %d %s\r\nAllow: OPTIONS\r\nContent-Length: 0\r\nConnection: %s\r\n\r\n"
        self._client.writer.write(head % (exchange.response_code, phrase, connection))
        await self._client.writer.drain()
        return keep_alive

    # --- an allowed request ---

    async def _relay(self, job: _Job) -> bool:
        request = job.asked.request
        key: PoolKey = (request.host, job.verdict.port, job.verdict.treatment)
        upstream = self._pool.take(key, job.verdict)
        if upstream is not None:
            self._gate.allowed_again(job.verdict, "http")
            job.exchange.upstream = (upstream.address, upstream.port)
        while True:
            if upstream is None:
                opened = await connect(
                    self._gate, self._contexts, request, job.verdict, job.exchange, "http"
                )
                if isinstance(opened, Failed):
                    return await self._could_not_connect(job, opened)
                upstream = opened
            reused = upstream.used
            try:
                keep_alive = await self._exchange(job, key, upstream)
                if job.unread:
                    await self._client.linger()
                return keep_alive
            except _UpstreamBroken as broken:
                abort(upstream.writer)
                # RFC 9112, 9.3.1: an idle connection may close just when it is used again; that is nobody's failure.
                # Nor is it retried where we closed it ourselves, because the rules changed.
                retry = reused and broken.reason is Reason.UPSTREAM_CLOSED and not job.answered
                retry = retry and job.exchange.verdict.allowed
                if retry and job.head.method in _IDEMPOTENT and not job.framing.has_body:
                    upstream = None
                    continue
                return await self._upstream_broke(job, broken)

    async def _could_not_connect(self, job: _Job, failed: Failed) -> bool:
        exchange = job.exchange
        exchange.detail = failed.detail
        if not failed.refused:
            exchange.failure = failed.reason
        keep_alive = job.keep_alive and not job.framing.has_body
        await self._refuse(job.head, job.asked.request, exchange, keep_alive)
        return keep_alive

    async def _upstream_broke(self, job: _Job, broken: _UpstreamBroken) -> bool:
        exchange = job.exchange
        exchange.detail = exchange.detail or str(broken)
        if exchange.verdict.allowed and exchange.failure is None:
            exchange.failure = broken.reason
            self._gate.observer.upstream_failed(broken.reason)
        if job.answered:
            # Half a response must not look like a whole one.
            abort(self._client.writer)
            return False
        await self._refuse(job.head, job.asked.request, exchange, keep_alive=False)
        return False

    async def _exchange(self, job: _Job, key: PoolKey, upstream: Upstream) -> bool:
        live = LiveConnection(
            job.asked.request, job.verdict.treatment, upstream.address, upstream.port, lambda _: None
        )

        def end(verdict: Verdict) -> None:
            job.exchange.verdict = verdict
            job.exchange.detail = "the rules changed"
            abort(upstream.writer)
            if job.answered:
                abort(self._client.writer)

        live.end = end
        self._gate.enter(live, job.verdict)
        upload: asyncio.Task[None] | None = None
        seconds = self._gate.settings.limits.idle_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                self._send_head(job, upstream)
                if job.framing.has_body:
                    upload = asyncio.create_task(self._upload(job, upstream, timeout))
                return await self._download(job, key, upstream, upload, timeout)
        except TimeoutError:
            raise _UpstreamBroken(Reason.UPSTREAM_TIMEOUT, f"nothing moved for {seconds:g} s") from None
        except BaseException:
            abort(upstream.writer)
            raise
        finally:
            self._gate.live.discard(live)
            if upload is not None and not upload.done():
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)

    def _send_head(self, job: _Job, upstream: Upstream) -> None:
        request = job.asked.request
        default_port = 443 if job.verdict.treatment is Treatment.ORIGINATE else 80
        upstream.writer.write(
            forward.request_bytes(
                job.head,
                method=job.head.method,
                path=job.asked.path,
                host=format_authority(request.host, job.verdict.port, default_port),
                framing=job.framing,
                websocket=job.websocket,
            )
        )

    async def _upload(self, job: _Job, upstream: Upstream, idle: asyncio.Timeout) -> None:
        """Streams the request body. Its own failures end the exchange by breaking the upstream connection."""
        try:
            body = body_for(job.framing, self._gate.settings.limits.header_bytes)
            job.exchange.bytes_received += await self._copy(
                body, self._client.input, upstream.writer, job.framing.chunked, idle
            )
        except Malformed as error:
            job.exchange.failure = Reason.MALFORMED_REQUEST
            job.exchange.detail = str(error)
            abort(upstream.writer)
        except _UpstreamBroken:
            # Only the client's input was read here, so it is the client that went away in mid-body.
            job.exchange.failure = Reason.CLIENT_CLOSED
            abort(upstream.writer)
        except OSError:
            # The destination no longer reads; whether it has answered is for the download to find out.
            job.unread = True

    async def _download(
        self,
        job: _Job,
        key: PoolKey,
        upstream: Upstream,
        upload: asyncio.Task[None] | None,
        idle: asyncio.Timeout,
    ) -> bool:
        head, framing = await self._final_head(job, upstream)
        _push_back(idle, self._gate.settings.limits.idle_timeout)
        if head.status == _SWITCHING_PROTOCOLS:
            idle.reschedule(None)
            await self._websocket(job, head, upstream)
            return False
        chunked_out = framing.chunked and job.head.minor == 1
        close_framed = framing.until_close or (framing.chunked and not chunked_out)
        keep_alive = job.keep_alive and not close_framed
        job.answered = True
        job.exchange.response_code = head.status
        self._client.writer.write(
            forward.response_bytes(
                head, framing=Framing() if close_framed else framing, keep_alive=keep_alive
            )
        )
        if framing.has_body:
            body = body_for(framing, self._gate.settings.limits.header_bytes)
            try:
                job.exchange.bytes_sent += await self._copy(
                    body, upstream.input, self._client.writer, chunked_out, idle
                )
            except Malformed as error:
                raise _UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
        if upload is not None:
            if not upload.done() and not _says_close(head):
                await upload
            if not upload.done():
                job.unread = True
            if job.unread or job.exchange.failure:
                keep_alive = False
        await self._client.writer.drain()
        reusable = keep_alive and head.minor == 1 and not _says_close(head) and not close_framed
        if reusable:
            self._pool.give(key, upstream)
        else:
            upstream.writer.close()
        return keep_alive

    async def _final_head(self, job: _Job, upstream: Upstream) -> tuple[ResponseHead, Framing]:
        """Reads response heads up to the final one; interim ones go on to the client as they come."""
        while True:
            try:
                raw = await read_head(upstream.input, self._gate.settings.limits.header_bytes)
            except TooLarge:
                raise _UpstreamBroken(Reason.UPSTREAM_MALFORMED, "response header too large") from None
            except Malformed as error:
                raise _UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
            except OSError as error:
                raise _UpstreamBroken(Reason.UPSTREAM_CLOSED, f"connection lost: {error}") from None
            if raw is None:
                raise _UpstreamBroken(Reason.UPSTREAM_CLOSED, "closed before a response")
            try:
                head = parse_response(raw)
                framing = response_framing(head, job.head.method)
            except Malformed as error:
                raise _UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
            if head.status == _SWITCHING_PROTOCOLS:
                problem = _not_a_websocket(job, head)
                if problem:
                    raise _UpstreamBroken(Reason.UPSTREAM_MALFORMED, problem)
                return head, framing
            if head.status >= 200:
                return head, framing
            if job.head.minor == 1:
                self._client.writer.write(
                    forward.response_bytes(head, framing=Framing(), keep_alive=True)
                )
                await self._client.writer.drain()

    async def _websocket(self, job: _Job, head: ResponseHead, upstream: Upstream) -> None:
        job.answered = True
        job.exchange.response_code = head.status
        self._client.writer.write(
            forward.response_bytes(head, framing=Framing(), keep_alive=True, websocket=True)
        )
        await run_tunnel(self._client, upstream, job.exchange)

    async def _copy(
        self, body: Body, source: Input, sink: Writer, chunked: bool, idle: asyncio.Timeout
    ) -> int:
        """Copies one body; returns its length. Raises `Malformed`; `_UpstreamBroken` where the source ended early."""
        total = 0
        seconds = self._gate.settings.limits.idle_timeout
        while True:
            data = body.take(source.buffer) if source.buffer else b""
            if data:
                total += len(data)
                sink.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
                await sink.drain()
                _push_back(idle, seconds)
            if body.done:
                break
            if not source.buffer or not data:
                try:
                    more = await source.fill()
                except OSError as error:
                    raise _UpstreamBroken(Reason.UPSTREAM_CLOSED, f"connection lost: {error}") from None
                if not more:
                    if isinstance(body, UntilCloseBody):
                        break
                    raise _UpstreamBroken(Reason.UPSTREAM_CLOSED, "closed in the middle of a body")
        if chunked:
            trailers = forward.fields_bytes(forward.trailer_fields(body.trailers))
            sink.write(b"0\r\n%s\r\n" % trailers)
        return total


async def read_head(source: Input, limit: int) -> bytes | None:
    """The next complete header section, consumed; None where the stream ended before it began.

    Raises `TooLarge`, `Malformed` (a stream that ends within a head included), or OSError.
    """
    searched = 0
    while True:
        end = head_end(source.buffer, searched)
        if end is not None:
            if end > limit:
                raise TooLarge
            head = bytes(source.buffer[:end])
            del source.buffer[:end]
            return head
        searched = len(source.buffer)
        if searched > limit:
            raise TooLarge
        if not await source.fill():
            if source.buffer:
                raise Malformed("the connection ended within a header section")
            return None


def _push_back(idle: asyncio.Timeout, seconds: float) -> None:
    if not idle.expired() and idle.when() is not None:
        idle.reschedule(asyncio.get_running_loop().time() + seconds)


def _accept(head: RequestHead) -> str:
    return b", ".join(head.values(b"accept")).decode("latin-1")


def _wants_keep_alive(head: RequestHead) -> bool:
    tokens = head.tokens(b"connection") + head.tokens(b"proxy-connection")
    if head.minor == 0:
        # RFC 9112, 9.3: an HTTP/1.0 client behind a proxy cannot be trusted to mean keep-alive.
        return False
    return b"close" not in tokens


def _says_close(head: ResponseHead) -> bool:
    return b"close" in head.tokens(b"connection")


_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _not_a_websocket(job: _Job, head: ResponseHead) -> str:
    """Why a 101 is not the answer to a WebSocket handshake (RFC 6455, 4.1), or the empty string."""
    if not job.websocket:
        return "101 to a request that did not ask for an upgrade"
    if head.tokens(b"upgrade") != [b"websocket"]:
        return "101 to another protocol than websocket"
    keys = job.head.values(b"sec-websocket-key")
    if len(keys) != 1:
        return "101 to a handshake without exactly one Sec-WebSocket-Key"
    expected = base64.b64encode(hashlib.sha1(keys[0] + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    if head.values(b"sec-websocket-accept") != [expected]:
        return "101 with a wrong Sec-WebSocket-Accept"
    return ""


async def read_request(client: Client) -> RequestHead | NotUnderstood | None:
    """The next request head of `client`; None at the end of the connection.

    The first byte may take the idle timeout, the rest of the head the header timeout.
    """
    limits = client.gate.settings.limits
    try:
        if not client.input.buffer:
            async with asyncio.timeout(limits.idle_timeout):
                if not await client.input.fill():
                    return None
    except (TimeoutError, OSError):
        return None
    try:
        async with asyncio.timeout(limits.header_timeout):
            raw = await read_head(client.input, limits.header_bytes)
        return None if raw is None else parse_request(raw)
    except TimeoutError:
        return NotUnderstood(Reason.CLIENT_TIMEOUT, f"no complete header in {limits.header_timeout:g} s")
    except TooLarge:
        return NotUnderstood(Reason.HEADERS_TOO_LARGE, f"a header of more than {limits.header_bytes} bytes")
    except Malformed as error:
        return NotUnderstood(Reason.MALFORMED_REQUEST, str(error))
    except OSError:
        return None


async def refuse_unread(client: Client, problem: NotUnderstood) -> None:
    """Answers a request whose head could not be read; the connection must be closed then."""
    exchange = client.begin()
    exchange.protocol = "HTTP/1.1"
    exchange.detail = problem.detail
    exchange.verdict = client.gate.refused(problem.reason, "http")
    try:
        await refuse_http(client, exchange)
    except OSError:
        exchange.failure = Reason.CLIENT_CLOSED
    finally:
        client.gate.finish(exchange)
