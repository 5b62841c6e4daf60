"""HTTP/1.1 from one client, request by request: read a head, decide, relay the bodies, go on.

Every request is judged on its own, whatever was allowed before it on the same connection, and travels on a connection
to the destination that *it* was allowed to reach. Bodies are streamed; nothing is read ahead of the verdict but the
head.
"""

from __future__ import annotations

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from . import forward
from .client import Client, abort
from .http1 import RequestHead
from .http_exchange import HttpExchange, UpstreamBroken
from .question import Question, read_question
from .refuse import refuse_http
from .target import NotUnderstood, Target
from .upstream import Failed, UpstreamPool, connect
from .upstream_tls import TlsContexts

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class HttpRelay:
    """Serves the requests of one client connection."""

    __slots__ = ("_client", "_contexts", "_gate", "_pool", "_question", "_target")

    def __init__(self, client: Client, target: Target, contexts: TlsContexts) -> None:
        self._client = client
        self._gate = client.gate
        self._target = target
        self._contexts = contexts
        self._pool = UpstreamPool(client.gate)
        self._question: Question | None = None
        """The last one that was understood."""

    def close(self) -> None:
        self._pool.close()
        self._client.forget_requests()

    async def serve(self, head: RequestHead) -> bool:
        """Answers the request that begins with `head`; returns whether the connection may carry another."""
        exchange = self._client.begin()
        exchange.method, exchange.path = head.method, head.target
        try:
            question = self._question
            path = question.path_in(head) if question is not None else None
            if question is None or path is None:
                read = read_question(head, self._target)
                if isinstance(read, NotUnderstood):
                    return await self._refuse_unread(head, exchange, read)
                self._question = question = read
                path = question.path
            request = question.request
            exchange.protocol, exchange.authority, exchange.path = question.protocol, question.authority, path
            exchange.host, exchange.port = request.host, request.port
            exchange.verdict = verdict = self._judge(head, question)
            if not verdict.allowed:
                # What follows may be bytes of the protocol that was asked for: not another request.
                keep_alive = self._keeps_client(question) and not question.upgrades and head.method != "CONNECT"
                await self._refuse(head, request, exchange, keep_alive)
                return keep_alive
            if forward.hops_left(head) == 0:
                return await self._answer_as_last_hop(exchange, self._keeps_client(question))
            if verdict.treatment is Treatment.ORIGINATE:
                exchange.tls_mode = "originate"
            job = HttpExchange(self._client, self._pool, head, question, path, verdict, exchange)
            try:
                return await self._relay(job)
            except OSError as error:
                exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
                exchange.detail = exchange.detail or f"client gone: {error.strerror or type(error).__name__}"
                return False
        finally:
            self._gate.finish(exchange)

    def _keeps_client(self, question: Question) -> bool:
        """Whether another request may follow on the client's connection where this one is answered by the gateway,
        which reads no bodies."""
        return question.keep_alive and not question.framing.has_body and not self._gate.draining

    async def _refuse_unread(self, head: RequestHead, exchange: Exchange, problem: NotUnderstood) -> bool:
        exchange.protocol = f"HTTP/1.{head.minor}"
        exchange.detail = problem.detail
        exchange.verdict = self._gate.refused(problem.reason, "http")
        await refuse_http(self._client, exchange, accept=_accept(head))
        return False

    def _judge(self, head: RequestHead, question: Question) -> Verdict:
        """The verdict on a request; counted here where it is a refusal."""
        gate, rules = self._gate, self._gate.ruleset.token
        if question.verdict is not None and gate.is_in_force(question.rules):
            return question.verdict
        verdict = gate.decide(question.request, "http")
        if not verdict.allowed:
            return verdict
        if (question.upgrades and not question.websocket) or head.method == "CONNECT":
            return gate.refused(Reason.UPGRADE_NOT_ALLOWED, "http", verdict.rule)
        if question.wants_tls and verdict.treatment is not Treatment.ORIGINATE:
            return gate.refused(Reason.PROTOCOL_NOT_ALLOWED, "http", verdict.rule)
        question.answered(verdict, rules)
        return verdict

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
        if not keep_alive:
            await self._client.linger()
        return keep_alive

    # --- an allowed request ---

    async def _relay(self, job: HttpExchange) -> bool:
        upstream = self._pool.take(job.question.key, job.verdict)
        if upstream is not None:
            self._gate.allowed_again(job.verdict, "http")
            job.exchange.upstream = (upstream.address, upstream.port)
        while True:
            if upstream is None:
                opened = await connect(self._gate, self._contexts, job.request, job.verdict, job.exchange, "http")
                if isinstance(opened, Failed):
                    return await self._could_not_connect(job, opened)
                upstream = opened
            reused = upstream.used
            broken: UpstreamBroken | None = None
            try:
                keep_alive = await job.run(upstream)
                if job.unread or (job.question.keep_alive and not keep_alive):
                    # Where another request has come, or the rest of this one, the answer could be lost by closing.
                    await self._client.linger()
                return keep_alive
            except UpstreamBroken as error:
                broken = error
            upstream.connection.abort()
            # RFC 9112, 9.3.1: an idle connection may close just when it is used again; that is nobody's failure.
            # Nor is it retried where we closed it ourselves, because the rules changed.
            retry = reused and broken.reason is Reason.UPSTREAM_CLOSED and not job.answered
            retry = retry and job.exchange.verdict.allowed
            if not (retry and job.head.method in _IDEMPOTENT and not job.question.framing.has_body):
                return await self._upstream_broke(job, broken)
            upstream = None

    async def _could_not_connect(self, job: HttpExchange, failed: Failed) -> bool:
        exchange = job.exchange
        exchange.detail = failed.detail
        if not failed.refused:
            exchange.failure = failed.reason
        keep_alive = self._keeps_client(job.question)
        await self._refuse(job.head, job.request, exchange, keep_alive)
        return keep_alive

    async def _upstream_broke(self, job: HttpExchange, broken: UpstreamBroken) -> bool:
        exchange = job.exchange
        exchange.detail = exchange.detail or str(broken)
        if exchange.verdict.allowed and exchange.failure is None:
            exchange.failure = broken.reason
            self._gate.observer.upstream_failed(broken.reason)
        if job.answered:
            # Half a response must not look like a whole one.
            abort(self._client.writer)
            return False
        await self._refuse(job.head, job.request, exchange, keep_alive=False)
        return False


def _accept(head: RequestHead) -> str:
    return b", ".join(head.values(b"accept")).decode("latin-1")
