"""Moves bytes both ways between a client and a destination, undecrypted, until both sides are done.

Each direction ends on its own (half-close), waits when the other side is slow, and the whole ends when nothing has
moved for the idle timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason

from .body_copy import Idle
from .client import Client, abort, can_write_eof, finish_soon
from .stream import Input, Writer
from .upstream import Upstream


async def run_tunnel(client: Client, upstream: Upstream, exchange: Exchange) -> None:
    """Relays until both directions have ended. Both connections are closed afterwards, whatever happened."""
    seconds = client.gate.settings.limits.idle_timeout
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(seconds) as timeout:
            idle = Idle(timeout, seconds)

            def received(count: int) -> None:
                exchange.bytes_received += count
                idle.touch()

            def sent(count: int) -> None:
                exchange.bytes_sent += count
                idle.touch()

            tasks = [
                asyncio.create_task(_pump(client.input, upstream.writer, received)),
                asyncio.create_task(_pump(upstream.input, client.writer, sent)),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
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
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        finish_soon(upstream.writer)


async def _pump(source: Input, sink: Writer, moved: Callable[[int], None]) -> None:
    while data := await source.read():
        sink.write(data)
        moved(len(data))
        await sink.drain()
    if can_write_eof(sink):
        sink.write_eof()
    else:
        sink.close()
