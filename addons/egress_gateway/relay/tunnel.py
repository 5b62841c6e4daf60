"""A tunnel: bytes both ways between a client and a destination, undecrypted, until both sides are done.

Between two bare sockets they go through the kernel (`splice.py`); where one side is no socket they are read and
written (`pump.py`). How it ends is the same: in peace, or with RST on both sides, so that nobody takes half of a
conversation for a whole one.
"""

from __future__ import annotations

import asyncio

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason

from .client import Client, abort, finish_soon
from .connection import Connection
from .pump import pump
from .splice import Ending, Splice
from .stream import Input
from .upstream import Upstream


async def run_tunnel(client: Client, upstream: Upstream, exchange: Exchange) -> None:
    """Relays until both directions have ended. The destination's side is closed afterwards, whatever happened; the
    client's as well, unless it ended in peace."""
    seconds = client.gate.settings.limits.idle_timeout
    sides = client.writer, upstream.writer
    try:
        # A TlsConnection is a Connection, and its bytes are not the socket's.
        if isinstance(client.writer, Connection) and {type(side) for side in sides} == {Connection}:
            await _splice(client.input, client.writer, upstream.input, upstream.writer, exchange, seconds)
        else:
            await pump(client.input, client.writer, upstream.input, upstream.writer, exchange, seconds)
    except TimeoutError:
        exchange.failure = exchange.failure or Reason.UPSTREAM_TIMEOUT
        exchange.detail = exchange.detail or f"nothing moved for {seconds:g} s"
        abort(client.writer)
        abort(upstream.writer)
    except OSError as error:
        # One side is gone; the other must not believe that its peer finished in peace.
        exchange.detail = exchange.detail or f"connection lost: {error.strerror or type(error).__name__}"
        abort(client.writer)
        abort(upstream.writer)
    finally:
        finish_soon(upstream.writer)


async def _splice(
    client: Input,
    client_side: Connection,
    upstream: Input,
    upstream_side: Connection,
    exchange: Exchange,
    seconds: float,
) -> None:
    """Relays between two sockets. Raises OSError and TimeoutError as `pump` does."""
    await _flush(client_side, upstream_side, seconds)
    over: asyncio.Future[tuple[Ending, OSError | None]] = asyncio.get_running_loop().create_future()

    def ended(how: Ending, error: OSError | None) -> None:
        if not over.done():
            over.set_result((how, error))

    def taken_back() -> None:
        """Somebody closes a side, who has said why."""
        if splice is not None:
            splice.stop()
        ended(Ending.LOST, None)

    splice: Splice | None = None
    splice = Splice(
        client_side.hand_over(taken_back),
        upstream_side.hand_over(taken_back),
        ended,
        idle_seconds=seconds,
        from_client=client.take(),
        from_upstream=upstream.take(),
    )
    try:
        splice.start()
        how, error = await over
    finally:
        splice.stop()
        exchange.bytes_received += splice.received
        exchange.bytes_sent += splice.sent
    if how is Ending.IDLE:
        raise TimeoutError
    if how is Ending.LOST:
        # Never as a TimeoutError, which the kernel has as well.
        raise ConnectionAbortedError(error.errno, error.strerror) if error else ConnectionAbortedError()


async def _flush(client: Connection, upstream: Connection, seconds: float) -> None:
    """Nothing that was written may come after what the kernel moves."""
    if client.unsent or upstream.unsent:
        async with asyncio.timeout(seconds):
            await client.drain()
            await upstream.drain()
    else:
        await client.drain()
        await upstream.drain()
