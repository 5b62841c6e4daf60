"""One allowed HTTP request on one connection to its destination: send it, relay the bodies both ways, see it end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from egress_gateway.gate.live import LiveConnection
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment, Verdict

from . import forward
from .body_copy import SourceEnded, copy_body
from .client import Client, abort, finish_soon, has_gone
from .heads import read_head, take_head
from .http1 import (
    NO_BODY,
    STEPS_A_TURN,
    Framing,
    Malformed,
    RequestHead,
    ResponseHead,
    body_for,
    parse_response,
    response_framing,
)
from .stream import TooLarge
from .target import Asked
from .tunnel import run_tunnel
from .upstream import PoolKey, Upstream, UpstreamPool
from .websocket import why_not_accepted

_SWITCHING_PROTOCOLS = 101
_MOST_INTERIM_RESPONSES = 32


class UpstreamBroken(Exception):
    """The destination's side ended the exchange; `reason` says how."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(slots=True)
class Job:
    """One allowed request on its way."""

    head: RequestHead
    asked: Asked
    verdict: Verdict
    ruleset: RuleSet
    """By which the verdict was given."""
    framing: Framing
    websocket: bool
    exchange: Exchange
    keep_alive: bool
    answered: bool = False
    """Whether any part of a final response has gone to the client."""
    unread: bool = False
    """Whether the client may still be sending a body that nobody will read, so that no request can follow it."""


class HttpExchange:
    """Relays `job` over `upstream`, and gives it back to `pool` where it may carry another request."""

    __slots__ = ("_client", "_gate", "_job", "_key", "_pool", "_upstream")

    def __init__(self, client: Client, pool: UpstreamPool, job: Job, key: PoolKey, upstream: Upstream) -> None:
        self._client = client
        self._gate = client.gate
        self._pool = pool
        self._job = job
        self._key = key
        self._upstream = upstream

    async def run(self) -> bool:
        """Returns whether the client's connection may carry another request.

        Raises `UpstreamBroken`, and OSError where the client is gone; the connection to the destination must not be
        used any more then.
        """
        job, upstream, gate = self._job, self._upstream, self._gate
        live = LiveConnection(job.asked.request, job.verdict.treatment, upstream.address, upstream.port, self._end)
        gate.enter(live, job.verdict, job.ruleset)
        upload: asyncio.Task[None] | None = None
        seconds = gate.settings.limits.idle_timeout
        try:
            with self._client.deadline.within(seconds, self._look_after_client):
                self._send_head()
                if job.framing.has_body:
                    upload = asyncio.create_task(self._upload())
                return await self._download(upload)
        except TimeoutError:
            raise UpstreamBroken(Reason.UPSTREAM_TIMEOUT, f"nothing moved for {seconds:g} s") from None
        except BaseException:
            abort(upstream.writer)
            raise
        finally:
            gate.live.discard(live)
            if upload is not None and not upload.done():
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)

    def _look_after_client(self) -> None:
        """Ends the exchange when the client has gone: nobody reads from it while its destination thinks."""
        if has_gone(self._client.writer):
            self._job.exchange.failure = Reason.CLIENT_CLOSED
            abort(self._upstream.writer)

    def _end(self, verdict: Verdict) -> None:
        """The rules no longer allow what is under way."""
        self._job.exchange.verdict = verdict
        self._job.exchange.detail = "the rules changed"
        abort(self._upstream.writer)
        if self._job.answered:
            abort(self._client.writer)

    def _send_head(self) -> None:
        job, upstream = self._job, self._upstream
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

    async def _upload(self) -> None:
        """Streams the request body. Its own failures end the exchange by breaking the upstream connection."""
        job, upstream, clock = self._job, self._upstream, self._client.deadline
        try:
            body = body_for(job.framing, self._gate.settings.limits.header_bytes, STEPS_A_TURN)
            job.exchange.bytes_received += await copy_body(
                body, self._client.input, upstream.writer, chunked=job.framing.chunked, idle=clock
            )
        except Malformed as error:
            job.exchange.failure = Reason.MALFORMED_REQUEST
            job.exchange.detail = str(error)
            abort(upstream.writer)
        except SourceEnded:
            job.exchange.failure = Reason.CLIENT_CLOSED
            abort(upstream.writer)
        except OSError:
            # The destination no longer reads; whether it has answered is for the download to find out.
            job.unread = True

    async def _download(self, upload: asyncio.Task[None] | None) -> bool:
        job, upstream, writer = self._job, self._upstream, self._client.writer
        head = await self._final_head()
        self._client.deadline.touch()
        framing = self._framing_of(head)
        if head.status == _SWITCHING_PROTOCOLS:
            self._client.deadline.stop()
            await self._websocket(head)
            return False
        chunked_out = framing.chunked and job.head.minor == 1
        close_framed = framing.until_close or (framing.chunked and not chunked_out)
        keep_alive = job.keep_alive and not close_framed
        job.answered = True
        job.exchange.response_code = head.status
        raw = forward.response_bytes(head, framing=NO_BODY if close_framed else framing, keep_alive=keep_alive)
        length, buffer = framing.length, upstream.input.buffer
        if length is not None and len(buffer) >= length:
            # All of it is here, as it mostly is.
            if length:
                raw += buffer[:length]
                del buffer[:length]
                job.exchange.bytes_sent += length
            writer.write(raw)
        else:
            writer.write(raw)
            await self._copy_response(framing, chunked_out)
        says_close = _says_close(head)
        if upload is not None:
            if not upload.done() and not says_close:
                await upload
            if not upload.done():
                job.unread = True
            if job.unread or job.exchange.failure:
                keep_alive = False
        await writer.drain()
        if keep_alive and head.minor == 1 and not says_close:
            self._pool.give(self._key, upstream)
        else:
            finish_soon(upstream.writer)
        return keep_alive

    async def _copy_response(self, framing: Framing, chunked_out: bool) -> None:
        job, upstream, client = self._job, self._upstream, self._client
        body = body_for(framing, self._gate.settings.limits.header_bytes, STEPS_A_TURN)
        try:
            job.exchange.bytes_sent += await copy_body(
                body, upstream.input, client.writer, chunked=chunked_out, idle=client.deadline
            )
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
        except SourceEnded as error:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, str(error)) from None
        if framing.until_close and not upstream.ended_in_peace:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, "closed without a TLS closure alert")

    async def _final_head(self) -> ResponseHead:
        """Reads response heads up to the final one; interim ones go on to the client as they come."""
        job, client = self._job, self._client
        for _ in range(_MOST_INTERIM_RESPONSES):
            head = await self._next_head()
            if head.status == _SWITCHING_PROTOCOLS:
                problem = why_not_accepted(job.head, head)
                if problem:
                    raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, problem)
                return head
            if head.status >= 200:
                return head
            self._framing_of(head)
            if job.head.minor == 1:
                client.writer.write(forward.response_bytes(head, framing=NO_BODY, keep_alive=True))
                await client.writer.drain()
        raise UpstreamBroken(
            Reason.UPSTREAM_MALFORMED, f"more than {_MOST_INTERIM_RESPONSES} responses before the final one"
        )

    async def _next_head(self) -> ResponseHead:
        upstream, limits = self._upstream, self._gate.settings.limits
        source = upstream.input
        try:
            if not source.buffer:
                await source.fill()
            # It mostly comes in one piece.
            raw = take_head(source.buffer, limits.header_bytes) or await read_head(source, limits.header_bytes)
            if raw is None:
                raise UpstreamBroken(Reason.UPSTREAM_CLOSED, "closed before a response")
            return parse_response(raw, limits.header_fields, upstream.last_section)
        except TooLarge:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, "response header too large") from None
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
        except OSError as error:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, f"connection lost: {error}") from None

    def _framing_of(self, head: ResponseHead) -> Framing:
        try:
            return response_framing(head, self._job.head.method)
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None

    async def _websocket(self, head: ResponseHead) -> None:
        job, upstream = self._job, self._upstream
        job.answered = True
        job.exchange.response_code = head.status
        self._client.writer.write(forward.response_bytes(head, framing=NO_BODY, keep_alive=True, websocket=True))
        await run_tunnel(self._client, upstream, job.exchange)


def _says_close(head: ResponseHead) -> bool:
    return b"close" in head.tokens(b"connection")
