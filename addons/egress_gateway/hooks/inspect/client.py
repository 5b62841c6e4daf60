"""One client connection on the inspect data path: what it was granted, what it is doing, and how it is ended."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import cast

from mitmproxy import connection
from mitmproxy.proxy import commands
from mitmproxy.proxy.server import ConnectionHandler

from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, Host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.client import abort, has_gone
from egress_gateway.relay.stream import Writer

from .flows import describe
from .idle import watch_idle
from .outbox import on_the_way, transport_of, unread
from .pace import Pace

logger = logging.getLogger(__name__)

Where = tuple[str, int, bool]
"""As mitmproxy keys its connections: host, port, TLS."""


ROUTE_SECONDS = 10.0
"""How long addresses that were found may be dialled; a person may hold a flow for longer."""


@dataclass(slots=True)
class Grant:
    """A destination that was allowed and may be dialled."""

    request: Request
    treatment: Treatment
    port: int
    """The port to dial."""
    exchange: Exchange
    """The one that was granted it last; told what becomes of the connection."""
    protocol: str
    """As the decision is counted."""
    route: Route | None = None
    """Its judged addresses, where they were found already."""
    found_at: float = 0.0

    def take_route(self) -> Route | None:
        """The addresses, once, and only while they are fresh."""
        route, self.route = self.route, None
        return route if time.monotonic() - self.found_at < ROUTE_SECONDS else None


@dataclass(slots=True)
class FindData:
    """Asks for the addresses of a grant; still None afterwards where asking failed."""

    grant: Grant
    found: Route | NoRoute | None = None


@dataclass
class EgressFindHook(commands.StartHook):
    """The addresses of a request are needed before its connection."""

    data: FindData


@dataclass
class ByteHostData:
    """Asks for the host that a redirected connection is for, whatever is spoken; None: the client has to say a word.

    With `has_spoken` the client has, and named nobody.
    """

    address: Address
    port: int
    client: str
    has_spoken: bool
    host: Host | None = None


@dataclass
class EgressByteHostHook(commands.StartHook):
    """A redirected connection may be one of bytes, whose host nobody names."""

    data: ByteHostData


class InspectedClient:
    def __init__(
        self, gate: Gatekeeper, handler: ConnectionHandler, original: tuple[Address, int] | None, *, decrypts: bool
    ) -> None:
        self.gate = gate
        self.original = original
        self.decrypts = decrypts
        """Whether TLS of this client is decrypted where its destination is allowed."""
        self.decrypting: Exchange | None = None
        """A TLS handshake that is going on."""
        self.dismissed = False
        """Whether the last words have been said."""
        self.pace = Pace()
        self.peer: tuple[str, int] = handler.client.peername[:2]
        self.transport = transport_of(handler.transports[handler.client].writer)
        self._handler = handler
        self._idle = watch_idle(handler, gate.settings.limits.idle_timeout)
        self._grants: dict[Where, Grant] = {}
        self._open: dict[int, Exchange] = {}
        self._dialled_for: set[str] = set()
        self._broken: dict[Where, Exchange] = {}

    # --- exchanges ---

    def begin(self) -> Exchange:
        """A new exchange; it is reported when it is finished, or when the client is gone."""
        exchange = self.gate.begin(self.peer)
        if self.original is not None:
            exchange.original_destination = (str(self.original[0]), self.original[1])
        self._open[id(exchange)] = exchange
        return exchange

    def finish(self, exchange: Exchange, *, shown: bool = False) -> None:
        """Reports an exchange that is over; once, however often it is called. `shown`: a flow shows it."""
        self._dialled_for.discard(exchange.request_id)
        if self._open.pop(id(exchange), None) is None:
            return
        self.gate.finish(exchange)
        if not shown:
            logger.info("egress: %s", describe(exchange))

    def forget(self, exchange: Exchange) -> None:
        """Drops an exchange that turned out to be the beginning of others."""
        self._open.pop(id(exchange), None)

    def refuse(self, exchange: Exchange, reason: Reason, detail: str, protocol: str) -> None:
        """Writes a refusal that needs no rules into an exchange."""
        exchange.detail = detail
        exchange.verdict = self.gate.refused(reason, protocol)

    def close(self) -> None:
        """The client is gone: whatever was open is over."""
        self._idle.cancel()
        for exchange in list(self._open.values()):
            if exchange.verdict.allowed and not exchange.is_tunnel and not exchange.failure:
                exchange.failure = Reason.CLIENT_CLOSED
            self.finish(exchange)

    # --- grants ---

    def grant(self, request: Request, verdict: Verdict, exchange: Exchange, protocol: str, *, tls: bool) -> Grant:
        """Allows a connection to what `request` asks for."""
        grant = Grant(request, verdict.treatment, verdict.port, exchange, protocol)
        self._grants[str(request.host), verdict.port, tls] = grant
        return grant

    def dials_for(self, exchange: Exchange) -> None:
        """A connection is being made for this exchange, and its permission counted with it."""
        self._dialled_for.add(exchange.request_id)

    def has_dialled_for(self, exchange: Exchange) -> bool:
        return exchange.request_id in self._dialled_for

    def broke(self, where: Where, exchange: Exchange) -> None:
        """A connection could not be made; `exchange` says why."""
        self._broken[where] = exchange

    def works(self, where: Where) -> None:
        """A connection has been made: what broke before is history."""
        self._broken.pop(where, None)

    def why_broken(self, where: Where, exchange: Exchange) -> bool:
        """Writes into `exchange` why no connection could be made; returns whether that is known."""
        why = self._broken.get(where)
        if why is None:
            return False
        exchange.verdict, exchange.failure, exchange.detail = why.verdict, why.failure, why.detail
        return True

    def granted(self, where: Where) -> Grant | None:
        return self._grants.get(where)

    # --- ends ---

    @property
    def is_idle(self) -> bool:
        """Whether neither a request nor a tunnel is under way, nor the answer that was given last."""
        over = not self._open and self.decrypting is None and not self.dismissed
        return over and not self._has_asked and not self.on_the_way

    @property
    def _has_asked(self) -> bool:
        """Whether something has come that this process had no time to read, say since it did not run."""
        return self.transport is not None and unread(self.transport) > 0

    @property
    def on_the_way(self) -> int:
        """The bytes of what the client was sent that it has not got yet."""
        return 0 if self.transport is None else on_the_way(self.transport)

    @property
    def has_gone(self) -> bool:
        """Whether nothing that is sent can reach the client any more."""
        io = self._handler.transports.get(self._handler.client)
        return io is None or io.writer is None or has_gone(cast(Writer, io.writer))

    def end(self) -> None:
        """Closes the client's connection once what is still to be sent has gone."""
        io = self._handler.transports.get(self._handler.client)
        if io is not None and io.writer is not None:
            io.writer.close()

    def end_upstream(self, server: connection.Server, grant: Grant, verdict: Verdict) -> None:
        """Ends a connection to a destination that the rules no longer allow, and what is going on there."""
        tunnel = False
        for exchange in self._open.values():
            if (exchange.host, exchange.port) == (grant.request.host, grant.request.port):
                exchange.verdict = verdict
                exchange.detail = "the rules changed"
                tunnel = tunnel or exchange.is_tunnel or bool(exchange.response_code)
        self.abort(server)
        if tunnel:
            # Half an answer must not look like a whole one.
            self.abort(self._handler.client)

    def abort(self, peer: connection.Connection) -> None:
        """Ends one connection at once."""
        io = self._handler.transports.get(peer)
        if io is not None and io.writer is not None:
            abort(cast(Writer, io.writer))
