"""One allowed HTTP request on one connection to its destination: send it, relay the bodies both ways, see it end."""

from __future__ import annotations

import asyncio

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Verdict

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
from .question import Question
from .stream import TooLarge, write_soon
from .tunnel import run_tunnel
from .upstream import Upstream, UpstreamPool
from .websocket import why_not_accepted

_SWITCHING_PROTOCOLS = 101
_MOST_INTERIM_RESPONSES = 32


class UpstreamBroken(Exception):
    """The destination's side ended the exchange; `reason` says how."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class HttpExchange:
    """Relays one allowed request; gives the destination's connection back to `pool` where it may carry another."""

    __slots__ = (
        "_client", "_gate", "_path", "_pool", "_upstream", "address", "answered", "exchange", "head", "port",
        "question", "request", "treatment", "unread", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        pool: UpstreamPool,
        head: RequestHead,
        question: Question,
        path: str,
        verdict: Verdict,
        exchange: Exchange,
    ) -> None:
        self._client = client
        self._gate = client.gate
        self._pool = pool
        self._path = path
        self.head = head
        self.question = question
        self.verdict = verdict
        self.exchange = exchange
        self.answered = False
        """Whether any part of a final response has gone to the client."""
        self.unread = False
        """Whether the client may still be sending a body that nobody will read, so that no request can follow it."""
        # What the gatekeeper asks of whatever is live: see `Live`.
        self.request = question.request
        self.treatment = verdict.treatment

    async def run(self, upstream: Upstream) -> bool:
        """Relays over `upstream`. Returns whether the client's connection may carry another request.

        Raises `UpstreamBroken`, and OSError where the client is gone; the connection to the destination must not be
        used any more then.
        """
        gate, question = self._gate, self.question
        self._upstream = upstream
        self.address, self.port = upstream.address, upstream.port
        gate.enter(self, self.verdict, question.rules)
        upload: asyncio.Task[None] | None = None
        seconds = gate.settings.limits.idle_timeout
        keep_alive = False
        failed: BaseException | None = None
        try:
            with self._client.deadline.within(seconds, self._look_after_client):
                head = self.head
                raw = forward.request_bytes(
                    head,
                    method=head.method,
                    path=self._path,
                    host=question.upstream_host,
                    framing=question.framing,
                    websocket=question.websocket,
                )
                if not question.framing.has_body:
                    upstream.connection.write_soon(raw)
                else:
                    upstream.connection.write(raw)
                    upload = asyncio.create_task(self._upload())
                keep_alive = await self._download(upload)
        except TimeoutError:
            failed = UpstreamBroken(Reason.UPSTREAM_TIMEOUT, f"nothing moved for {seconds:g} s")
        except BaseException as error:
            upstream.connection.abort()
            if self.answered:
                # Half a response must not look like a whole one, also where the gateway itself ends.
                abort(self._client.writer)
            failed = error
        gate.live.discard(self)
        if upload is not None and not upload.done():
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
        if failed is not None:
            raise failed
        return keep_alive

    def _look_after_client(self) -> None:
        """Ends the exchange when the client has gone: nobody reads from it while its destination thinks."""
        if has_gone(self._client.writer):
            self.exchange.failure = Reason.CLIENT_CLOSED
            self._upstream.connection.abort()

    def end(self, verdict: Verdict) -> None:
        """The rules no longer allow what is under way."""
        self.exchange.verdict = verdict
        self.exchange.detail = "the rules changed"
        self._upstream.connection.abort()
        if self.answered:
            abort(self._client.writer)

    async def _upload(self) -> None:
        """Streams the request body. Its own failures end the exchange by breaking the upstream connection."""
        upstream, framing, clock = self._upstream, self.question.framing, self._client.deadline
        try:
            body = body_for(framing, self._gate.settings.limits.header_bytes, STEPS_A_TURN)
            # Not `+= await …`, which adds to what there was before the wait.
            received = await copy_body(
                body, self._client.input, upstream.connection, chunked=framing.chunked, idle=clock
            )
            self.exchange.bytes_received += received
        except Malformed as error:
            self.exchange.failure = Reason.MALFORMED_REQUEST
            self.exchange.detail = str(error)
            upstream.connection.abort()
        except SourceEnded:
            self.exchange.failure = Reason.CLIENT_CLOSED
            upstream.connection.abort()
        except OSError:
            # The destination no longer reads; whether it has answered is for the download to find out.
            self.unread = True

    async def _download(self, upload: asyncio.Task[None] | None) -> bool:
        upstream, writer = self._upstream, self._client.writer
        head = await self._next_head()
        if head.status < 200:
            head = await self._final_head(head)
        self._client.deadline.touch()
        framing = self._framing_of(head)
        if head.status == _SWITCHING_PROTOCOLS:
            self._client.deadline.stop()
            await self._websocket(head)
            return False
        chunked_out = framing.chunked and self.head.minor == 1
        close_framed = framing.until_close or (framing.chunked and not chunked_out)
        keep_alive = self.question.keep_alive and not close_framed and not self._gate.draining
        self.answered = True
        self.exchange.response_code = head.status
        raw = forward.response_bytes(head, framing=NO_BODY if close_framed else framing, keep_alive=keep_alive)
        length, buffer = framing.length, upstream.input.buffer
        if length is not None and len(buffer) >= length:
            # All of it is here, as it mostly is.
            if length:
                raw += buffer[:length]
                del buffer[:length]
                self.exchange.bytes_sent += length
            write_soon(writer, raw)
        else:
            writer.write(raw)
            await self._copy_response(framing, chunked_out)
        says_close = head.section.closes
        if upload is not None:
            if not upload.done() and not says_close:
                await upload
            if not upload.done():
                self.unread = True
            if self.unread or self.exchange.failure:
                keep_alive = False
        await writer.drain()
        if keep_alive and head.minor == 1 and not says_close and not upstream.connection.unsent:
            self._pool.give(self.question.key, upstream)
        else:
            finish_soon(upstream.connection)
        return keep_alive

    async def _copy_response(self, framing: Framing, chunked_out: bool) -> None:
        upstream, client = self._upstream, self._client
        body = body_for(framing, self._gate.settings.limits.header_bytes, STEPS_A_TURN)
        try:
            sent = await copy_body(body, upstream.input, client.writer, chunked=chunked_out, idle=client.deadline)
            self.exchange.bytes_sent += sent
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
        except SourceEnded as ended:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, str(ended)) from None
        if framing.until_close and not upstream.ended_in_peace:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, "closed without a TLS closure alert")

    async def _final_head(self, head: ResponseHead) -> ResponseHead:
        """Reads on from an interim response to the final one, or 101; interim ones go on to the client as they come."""
        client = self._client
        seen = 0
        while head.status < 200 and head.status != _SWITCHING_PROTOCOLS:
            self._framing_of(head)
            if self.head.minor == 1:
                client.writer.write(forward.response_bytes(head, framing=NO_BODY, keep_alive=True))
                await client.writer.drain()
            seen += 1
            if seen == _MOST_INTERIM_RESPONSES:
                raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, f"more than {seen} responses before the final one")
            head = await self._next_head()
        if head.status == _SWITCHING_PROTOCOLS:
            problem = why_not_accepted(self.head, head)
            if problem:
                raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, problem)
        return head

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
            return parse_response(raw, limits.header_fields, upstream.last_head)
        except TooLarge:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, "response header too large") from None
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None
        except OSError as lost:
            raise UpstreamBroken(Reason.UPSTREAM_CLOSED, f"connection lost: {lost}") from None

    def _framing_of(self, head: ResponseHead) -> Framing:
        try:
            return response_framing(head, self.head.method)
        except Malformed as error:
            raise UpstreamBroken(Reason.UPSTREAM_MALFORMED, str(error)) from None

    async def _websocket(self, head: ResponseHead) -> None:
        upstream = self._upstream
        self.answered = True
        self.exchange.response_code = head.status
        self._client.writer.write(forward.response_bytes(head, framing=NO_BODY, keep_alive=True, websocket=True))
        await run_tunnel(self._client, upstream, self.exchange)
