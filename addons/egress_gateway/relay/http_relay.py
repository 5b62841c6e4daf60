"""HTTP/1.1 from one client, request by request: read a head, decide, relay the bodies, go on.

Every request is judged on its own, whatever was allowed before it on the same connection, and travels on a connection
to the destination that *it* was allowed to reach. Bodies are streamed; nothing is read ahead of the verdict but the
head.
"""

from __future__ import annotations

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from . import forward
from .client import Client, abort
from .http1 import Framing, Malformed, RequestHead, request_framing
from .http_exchange import HttpExchange, Job, UpstreamBroken
from .refuse import refuse_http
from .target import Asked, NotUnderstood, Target, read_target
from .upstream import Failed, PoolKey, UpstreamPool, connect
from .upstream_tls import TlsContexts
from .websocket import asks_for_websocket

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


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
        self._client.deadline.close()

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
        ruleset = self._gate.ruleset
        verdict, websocket = self._judge(head, asked, framing)
        exchange.verdict = verdict
        keep_alive = _wants_keep_alive(head)
        if not verdict.allowed:
            # What follows may be a body, or bytes of the protocol that was asked for: not another request.
            keep_alive = keep_alive and not framing.has_body and not head.values(b"upgrade")
            keep_alive = keep_alive and head.method != "CONNECT"
            await self._refuse(head, request, exchange, keep_alive)
            return keep_alive
        if forward.hops_left(head) == 0:
            return await self._answer_as_last_hop(exchange, keep_alive and not framing.has_body)
        if verdict.treatment is Treatment.ORIGINATE:
            exchange.tls_mode = "originate"
        job = Job(head, asked, verdict, ruleset, framing, websocket, exchange, keep_alive)
        try:
            return await self._relay(job)
        except OSError as error:
            exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
            exchange.detail = exchange.detail or f"client gone: {error.strerror or type(error).__name__}"
            return False

    def _judge(self, head: RequestHead, asked: Asked, framing: Framing) -> tuple[Verdict, bool]:
        websocket = asks_for_websocket(head) and not framing.has_body
        verdict = self._gate.decide(asked.request, "http")
        if not verdict.allowed:
            return verdict, False
        if (head.values(b"upgrade") and not websocket) or head.method == "CONNECT":
            return self._gate.refused(Reason.UPGRADE_NOT_ALLOWED, "http", verdict.rule), False
        if asked.wants_tls and verdict.treatment is not Treatment.ORIGINATE:
            return self._gate.refused(Reason.PROTOCOL_NOT_ALLOWED, "http", verdict.rule), False
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
        await self._client.flush()
        return keep_alive

    # --- an allowed request ---

    async def _relay(self, job: Job) -> bool:
        request = job.asked.request
        key: PoolKey = (request.host, job.verdict.port, job.verdict.treatment)
        upstream = self._pool.take(key, job.verdict)
        if upstream is not None:
            self._gate.allowed_again(job.verdict, "http")
            job.exchange.upstream = (upstream.address, upstream.port)
        while True:
            if upstream is None:
                opened = await connect(self._gate, self._contexts, request, job.verdict, job.exchange, "http")
                if isinstance(opened, Failed):
                    return await self._could_not_connect(job, opened)
                upstream = opened
            reused = upstream.used
            try:
                keep_alive = await HttpExchange(self._client, self._pool, job, key, upstream).run()
                if job.unread:
                    await self._client.linger()
                return keep_alive
            except UpstreamBroken as broken:
                abort(upstream.writer)
                # RFC 9112, 9.3.1: an idle connection may close just when it is used again; that is nobody's failure.
                # Nor is it retried where we closed it ourselves, because the rules changed.
                retry = reused and broken.reason is Reason.UPSTREAM_CLOSED and not job.answered
                retry = retry and job.exchange.verdict.allowed
                if retry and job.head.method in _IDEMPOTENT and not job.framing.has_body:
                    upstream = None
                    continue
                return await self._upstream_broke(job, broken)

    async def _could_not_connect(self, job: Job, failed: Failed) -> bool:
        exchange = job.exchange
        exchange.detail = failed.detail
        if not failed.refused:
            exchange.failure = failed.reason
        keep_alive = job.keep_alive and not job.framing.has_body
        await self._refuse(job.head, job.asked.request, exchange, keep_alive)
        return keep_alive

    async def _upstream_broke(self, job: Job, broken: UpstreamBroken) -> bool:
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


def _accept(head: RequestHead) -> str:
    return b", ".join(head.values(b"accept")).decode("latin-1")


def _wants_keep_alive(head: RequestHead) -> bool:
    if head.minor == 0:
        # RFC 9112, 9.3: an HTTP/1.0 client behind a proxy cannot be trusted to mean keep-alive.
        return False
    return b"close" not in head.tokens(b"connection") and b"close" not in head.tokens(b"proxy-connection")
