"""Moves bytes both ways by reading and writing them: for sides that are no bare sockets (TLS, mitmproxy's own streams).

Each direction ends on its own (half-close), waits when the other side is slow, and the whole ends when nothing has
moved for the idle timeout. Tunnels between two sockets need none of it: see `splice.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from egress_gateway.policy.events import Exchange

from .client import can_write_eof
from .deadline import Deadline
from .stream import Input, Writer


async def pump(
    client: Input, client_writer: Writer, upstream: Input, upstream_writer: Writer, exchange: Exchange, seconds: float
) -> None:
    """Relays until both directions have ended. Raises OSError where a side is lost, and TimeoutError where nothing has
    moved for so many `seconds`."""
    deadline = Deadline()
    tasks: list[asyncio.Task[None]] = []

    def received(count: int) -> None:
        exchange.bytes_received += count
        deadline.touch()

    def sent(count: int) -> None:
        exchange.bytes_sent += count
        deadline.touch()

    failed: BaseException | None = None
    try:
        with deadline.within(seconds):
            tasks = [
                asyncio.create_task(_one_way(client, upstream_writer, received)),
                asyncio.create_task(_one_way(upstream, client_writer, sent)),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    except BaseException as error:
        failed = error
    deadline.close()
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed is not None:
        raise failed


async def _one_way(source: Input, sink: Writer, moved: Callable[[int], None]) -> None:
    while data := await source.read():
        sink.write(data)
        moved(len(data))
        await sink.drain()
    if can_write_eof(sink):
        sink.write_eof()
    else:
        sink.close()
