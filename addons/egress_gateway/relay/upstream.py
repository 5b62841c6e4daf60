"""Connections to destinations: dialled only to addresses the gatekeeper judged, kept for one client connection only."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.gate.settings import Settings
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, Host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from .client import finish_soon
from .connection import Connection
from .dial import DialError, dial
from .http1 import LastHead, ResponseHead
from .stream import Input
from .tls_connection import TlsConnection
from .upstream_tls import TlsContexts, describe

PoolKey = tuple[Host, int, Treatment]


class Upstream:
    """An open connection to a destination, at `address` and `port`."""

    __slots__ = ("address", "connection", "input", "judged_by", "last_head", "port", "used")

    def __init__(self, connection: Connection, address: Address, port: int) -> None:
        self.connection = connection
        self.input = Input(connection)
        self.address = address
        self.port = port
        self.used = False
        """Whether it has carried a request before."""
        self.judged_by: tuple[Verdict, object, Settings] | None = None
        """What said last that it may be used again: a verdict, and of that time the rules' token and the settings."""
        self.last_head: LastHead[ResponseHead] = LastHead()
        """Of its responses."""

    @property
    def usable(self) -> bool:
        """Whether it may carry another request: open, and silent since the last response."""
        source = self.input
        return not (source.buffer or source.eof or self.connection.is_closing()) and self.silent

    @property
    def silent(self) -> bool:
        """Whether nothing has come that was not read yet, the end of the stream included. What has is lost."""
        if self.connection.is_silent():
            return True
        try:
            # Under TLS what has come may be for OpenSSL alone, such as a session to resume.
            return self.connection.read_now(1) is None and self.connection.is_silent()
        except OSError:
            return False

    @property
    def ended_in_peace(self) -> bool:
        """Whether the destination itself has ended the connection: under TLS only its closure alert says so, and FIN
        could come from anybody on the way (RFC 9112, 9.8)."""
        return not isinstance(self.connection, TlsConnection) or self.connection.ended_in_peace


@dataclass(frozen=True, slots=True)
class Failed:
    """No connection: `refused` by the policy, or failed on the way."""

    reason: Reason
    detail: str
    refused: bool = False


async def connect(
    gate: Gatekeeper,
    contexts: TlsContexts,
    request: Request,
    verdict: Verdict,
    exchange: Exchange,
    protocol: str,
) -> Upstream | Failed:
    """Finds the addresses of an allowed request, dials one, and opens TLS where the verdict is to originate it."""
    route = await gate.find_addresses(request, verdict, exchange, protocol)
    if isinstance(route, NoRoute):
        if not route.refused:
            gate.observer.upstream_failed(route.reason)
        return Failed(route.reason, route.detail, route.refused)
    opened = await _dial(gate, route, exchange)
    if isinstance(opened, Upstream) and verdict.treatment is Treatment.ORIGINATE:
        opened = await _start_tls(gate, contexts, request.host, opened)
    if isinstance(opened, Failed):
        gate.observer.upstream_failed(opened.reason)
    return opened


async def _dial(gate: Gatekeeper, route: Route, exchange: Exchange) -> Upstream | Failed:
    started = time.perf_counter()
    try:
        dialled = await dial(
            route.addresses,
            route.port,
            connect_timeout=gate.settings.limits.connect_timeout,
            local_address=gate.settings.local_address,
        )
    except DialError as error:
        reason = Reason.CONNECT_TIMEOUT if error.timed_out else Reason.CONNECT_FAILED
        return Failed(reason, str(error))
    gate.observer.connected(time.perf_counter() - started)
    exchange.upstream = (dialled.address, route.port)
    return Upstream(dialled.connection, dialled.address, route.port)


async def _start_tls(gate: Gatekeeper, contexts: TlsContexts, host: Host, upstream: Upstream) -> Upstream | Failed:
    started = time.perf_counter()
    if not upstream.silent:
        # What came before TLS would be read after it, as if the destination's certificate vouched for it.
        upstream.connection.abort()
        return Failed(Reason.UPSTREAM_TLS_FAILED, "the host sent something, or left, before TLS began")
    secure: Connection = upstream.connection
    try:
        secure = contexts.wrap(upstream.connection, host)
        async with asyncio.timeout(gate.settings.limits.connect_timeout):
            await secure.handshake()
    except (OSError, TimeoutError, ValueError) as error:  # ssl.SSLError is an OSError
        secure.abort()
        return Failed(Reason.UPSTREAM_TLS_FAILED, describe(error))
    except BaseException:
        secure.abort()
        raise
    gate.observer.secured(time.perf_counter() - started)
    return Upstream(secure, upstream.address, upstream.port)


class UpstreamPool:
    """Idle connections of one client connection, by verified destination. Never shared between clients."""

    def __init__(self, gate: Gatekeeper, most: int = 4) -> None:
        self._gate = gate
        self._most = most
        self._idle: dict[PoolKey, Upstream] = {}

    def take(self, key: PoolKey, verdict: Verdict) -> Upstream | None:
        """An idle connection that may carry a request allowed by `verdict`."""
        upstream = self._idle.pop(key, None)
        if upstream is None:
            return None
        if upstream.usable and self._may_reuse(upstream, verdict):
            return upstream
        finish_soon(upstream.connection)
        return None

    def _may_reuse(self, upstream: Upstream, verdict: Verdict) -> bool:
        """Asks the gatekeeper about the address, where anything that its answer hangs on is another than last time."""
        gate, by = self._gate, upstream.judged_by
        if by is not None and by[0] is verdict and by[1] is gate.ruleset.token and by[2] is gate.settings:
            return True
        if not gate.may_reuse(verdict, upstream.address):
            return False
        upstream.judged_by = (verdict, gate.ruleset.token, gate.settings)
        return True

    def give(self, key: PoolKey, upstream: Upstream) -> None:
        upstream.used = True
        old = self._idle.pop(key, None)
        if old is not None:
            finish_soon(old.connection)
        self._idle[key] = upstream
        if len(self._idle) > self._most:
            finish_soon(self._idle.pop(next(iter(self._idle))).connection)

    def close(self) -> None:
        for upstream in self._idle.values():
            with contextlib.suppress(OSError):
                finish_soon(upstream.connection)
        self._idle.clear()
