"""/metrics, /healthz and /readyz of all workers, in a process of its own.

None of the workers could serve them for the others: it may be the one that dies, or that is too busy to answer. What
they count is in memory that this process was forked with, so it asks nobody.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from egress_gateway.observe.admin import AdminServer

from .board import Board
from .processes import hear_hangups

logger = logging.getLogger(__name__)


def serve(listen: str, exposition: Callable[[], bytes], board: Board, tell: Callable[[], None]) -> int:
    """Serves until SIGTERM; returns an exit status. `tell` is called when the board says on which port."""
    with asyncio.Runner() as runner:
        return runner.run(_serve(AdminServer(listen, exposition, lambda: not_ready(board)), board, tell))


def told_if_it_cannot_listen(listen: str) -> list[str]:
    """What `serve` would say of its port; nothing where that is free at the moment, or none is wanted."""
    if not listen:
        return []

    async def try_it() -> list[str]:
        server = AdminServer(listen, lambda: b"")
        try:
            await server.start()
        except OSError as error:
            return [error.strerror or str(error)]
        await server.stop()
        return []

    return asyncio.run(try_it())


async def _serve(server: AdminServer, board: Board, tell: Callable[[], None]) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    hear_hangups()
    try:
        await server.start()
    except OSError as error:
        logger.error("egress gateway: %s", error.strerror or error)
        return 1
    board.telemetry_port = int(server.address.rpartition(":")[2])
    tell()
    await ended.wait()
    await server.stop()
    return 0


def not_ready(board: Board) -> str | None:
    """Why no traffic should come; None where it may."""
    if board.draining:
        return "the gateway is shutting down"
    return None if board.ready else "no worker is ready"
