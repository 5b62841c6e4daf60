"""What one client may have of the gateway holds for all workers together, also after one of them has died."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from support.gateway import Gateway
from support.http import connect_tunnel
from support.waiting import eventually

from .conftest import BYTES, Runner

pytestmark = [pytest.mark.private_network]

_MOST = 24  # of which both workers have some: the kernel draws lots


def tunnel(gateway: Gateway) -> socket.socket | None:
    """None where the client has too many."""
    with contextlib.suppress(OSError, EOFError):
        status, sock = connect_tunnel(gateway, f"{BYTES}:5432")
        if status == 200:
            return sock
        sock.close()
    return None


def test_a_client_has_so_many_connections_of_all_workers_together(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2", options={"egress_max_connections_per_client": _MOST})
    gateway = running.gateway
    with contextlib.ExitStack() as stack:

        def open_one() -> socket.socket | None:
            sock = tunnel(gateway)
            return stack.enter_context(closing(sock)) if sock is not None else None

        held = [open_one() for _ in range(_MOST)]
        assert None not in held
        assert open_one() is None
        gateway.wait_for_log(reason="too_many_connections")
        by_worker = Counter(running.serving(sock for sock in held if sock is not None))
        assert len(by_worker) == 2, "both of them serve it"
        doomed, lost = by_worker.popitem()
        running.kill(doomed)
        eventually(lambda: gateway.metric("egress_worker_restarts_total") == 1, "another worker")
        fresh = [eventually(open_one, "what the dead one had, for others") for _ in range(lost)]
        assert len(fresh) == lost
        assert open_one() is None, "and no more than that"
