"""A tunnel: bytes both ways between a client and a destination, undecrypted, until both sides are done.

Between two bare sockets they go through the kernel (`splice.py`); where one side is no socket they are read and
written (`pump.py`). How it ends is the same: in peace, or with RST on both sides, so that nobody takes half of a
conversation for a whole one.

Most tunnels are idle most of the time, so this is written to be small: one object, and one coroutine that waits.
"""

from __future__ import annotations

import asyncio

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

from .client import Client, abort, finish_soon
from .connection import Connection
from .pump import pump
from .splice import Ending, Splice
from .stream import Input
from .upstream import Upstream
from .waiting import Waiting


class Tunnel:
    """Between `client` and `upstream`, for `exchange`, which is told how much has moved and why it ended."""

    __slots__ = ("_client", "_ending", "_error", "_exchange", "_input", "_over", "_splice", "_upstream")

    def __init__(self, client: Client, upstream: Upstream, exchange: Exchange) -> None:
        self._client = client
        self._upstream = upstream.connection
        self._input: Input | None = upstream.input
        """The destination's, until somebody else reads there."""
        self._exchange = exchange
        self._splice: Splice | None = None
        self._ending: Ending | None = None
        self._error: Exception | None = None
        self._over = Waiting(asyncio.get_running_loop())

    async def run(self) -> None:
        """Relays until both directions have ended. The destination's side is closed afterwards, whatever happened; the
        client's as well, unless it ended in peace. What is raised is a fault of our own."""
        client, upstream = self._client, self._upstream
        seconds = client.gate.settings.limits.idle_timeout
        client.forget_requests()
        try:
            self._opened()
            # A TlsConnection is a Connection, and its bytes are not the socket's.
            if type(client.writer) is type(upstream) is Connection:
                if client.writer.unsent or upstream.unsent:
                    await self._flush(seconds)
                self._begin(client.writer, upstream, seconds)
                while self._ending is None:
                    await self._over
                if self._error is not None:
                    raise self._error
            else:
                await pump(client.input, client.writer, self._give_input(), upstream, self._exchange, seconds)
                self._ending = Ending.PEACE
        except TimeoutError:
            self._ending = Ending.IDLE
        except OSError as error:
            self._ending, self._error = Ending.LOST, error
        except asyncio.CancelledError:
            self._ending = self._ending or Ending.LOST
            raise
        finally:
            self._finish(seconds)
            self._closed()

    def _opened(self) -> None:
        """Bytes are about to flow."""

    def _closed(self) -> None:
        """It is over, whatever happened."""

    async def _flush(self, seconds: float) -> None:
        """Nothing that was written may come after what the kernel moves. Raises OSError and TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._client.writer.drain()
            await self._upstream.drain()

    def _give_input(self) -> Input:
        source, self._input = self._input, None
        assert source is not None
        return source

    def _begin(self, client: Connection, upstream: Connection, seconds: float) -> None:
        """Raises OSError."""
        if self._ending is not None:
            return
        if client.is_closing() or upstream.is_closing():
            raise ConnectionAbortedError
        taken_back = self._taken_back
        self._splice = Splice(
            client.hand_over(taken_back),
            upstream.hand_over(taken_back),
            self,
            idle_seconds=seconds,
            from_client=self._client.input.take(),
            from_upstream=self._give_input().take(),
        )
        self._splice.start()

    def ended(self, how: Ending, error: Exception | None) -> None:
        """The splice is over, as a callback of the loop has found."""
        self._ending, self._error = how, error
        self._over.wake()

    def _taken_back(self) -> None:
        """Somebody closes a side, who has said why."""
        if self._splice is not None:
            self._splice.stop()
        if self._ending is None:
            self._ending = Ending.LOST
            self._over.wake_soon()

    def _finish(self, seconds: float) -> None:
        exchange, splice = self._exchange, self._splice
        if splice is not None:
            splice.stop()
            exchange.bytes_received += splice.received
            exchange.bytes_sent += splice.sent
        if self._ending is Ending.IDLE:
            exchange.failure = exchange.failure or Reason.UPSTREAM_TIMEOUT
            exchange.detail = exchange.detail or f"nothing moved for {seconds:g} s"
        elif self._ending is Ending.LOST:
            why = getattr(self._error, "strerror", None) or "it was closed"
            exchange.detail = exchange.detail or f"connection lost: {why}"
        if self._ending is not Ending.PEACE:
            # The other side must not believe that its peer finished in peace.
            abort(self._client.writer)
            abort(self._upstream)
        finish_soon(self._upstream)


class JudgedTunnel(Tunnel):
    """A tunnel that ends when the rules no longer allow it, and with which its exchange is over."""

    __slots__ = ("_verdict", "address", "port", "request", "treatment")

    def __init__(
        self, client: Client, upstream: Upstream, request: Request, verdict: Verdict, exchange: Exchange
    ) -> None:
        super().__init__(client, upstream, exchange)
        self._verdict = verdict
        self.request = request
        self.treatment: Treatment = verdict.treatment
        self.address: Address = upstream.address
        self.port = upstream.port

    def _opened(self) -> None:
        self._client.gate.enter(self, self._verdict)
        self._client.gate.observer.tunnel_opened(self._exchange)

    def end(self, now: Verdict) -> None:
        """The rules have changed: both sides are reset at once."""
        self._exchange.verdict = now
        self._exchange.detail = "the rules changed"
        abort(self._upstream)
        abort(self._client.writer)

    def _closed(self) -> None:
        gate = self._client.gate
        gate.live.discard(self)
        gate.finish(self._exchange)


async def run_tunnel(client: Client, upstream: Upstream, exchange: Exchange) -> None:
    """Relays until both directions have ended; see `Tunnel.run`."""
    await Tunnel(client, upstream, exchange).run()
