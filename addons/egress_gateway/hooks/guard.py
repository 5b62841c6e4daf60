"""The last word on every connection, at the end of mitmproxy's chain of addons.

It is a member of the chain of its own, so that no other addon that raises, and no script that goes away, takes it
along. What it has not allowed is refused: a client connection is either taken over by the relay or goes through the
inspect hooks; an upstream connection nobody gave a verdict for is not opened.

Clients come in two ways, and are admitted by the same words: mitmproxy has accepted them (`client_connected`), or the
runner has (`serve_accepted`), which knows no mitmproxy on the way from a socket to the relay.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from mitmproxy import connection, ctx
from mitmproxy.platform.linux import original_addr
from mitmproxy.proxy.server import ConnectionHandler

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.nameserver.questions import NameServer, client_of
from egress_gateway.nameserver.serve import serve as serve_questions
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client import Client, abort, finish
from egress_gateway.relay.connection import Connection
from egress_gateway.relay.layer import RelayData, take_over
from egress_gateway.relay.refuse import refuse_http
from egress_gateway.relay.serve import serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.upstream_tls import TlsContexts

from .blocked import blocked_by
from .fail_closed import REFUSED, nothing, refusing
from .guest import Guest
from .inspect.client_hooks import ClientHooks
from .inspect.flows import describe
from .modes import DNS, MODES

logger = logging.getLogger(__name__)

_MOST_TOLD = 32
"""Clients that are told at a time that there is no room for them; each costs a descriptor of those that are kept."""
_TELL_SECONDS = 2.0


def _refuse_client(_: Any, client: connection.Client) -> None:
    client.error = REFUSED


def _end_relay(_: Any, data: RelayData) -> None:
    data.writer.close()


class _Counts(Protocol):
    """Counts the connections of a client, and says when they are too many."""

    def admit(self, client: str, /) -> bool: ...
    def leave(self, client: str, /) -> None: ...


class Guard:
    """`relaying` says which data path new connections take; `contexts` must be set before the first one is relayed."""

    def __init__(self, gate: Gatekeeper, inspected: ClientHooks) -> None:
        self.gate = gate
        self.inspected = inspected
        self.relaying = True
        self.contexts: TlsContexts | None = None
        self.name_server = NameServer(gate, show=self._show)
        self.blocks_global, self.blocks_private = True, False
        """Options `block_global` and `block_private`, which mitmproxy copies whenever they are looked at."""
        self.elsewhere: Callable[[], int] = lambda: 0
        """How many client connections the other processes of this gateway have open."""
        self.tell_open: Callable[[int], None] = lambda _: None
        """Told how many this one has, whenever that changes."""
        self._admitted: dict[str, _Counts] = {}
        self._serving: dict[asyncio.Task[None], Guest] = {}
        self._turning_away: set[asyncio.Task[None]] = set()

    @property
    def open_connections(self) -> int:
        """Of clients, in this process."""
        return len(self._admitted) + len(self._serving)

    # --- clients that mitmproxy has accepted ---

    @refusing(_refuse_client)
    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            return
        mode = client.proxy_mode.type_name
        if client.transport_protocol != "tcp" or mode not in MODES:
            self._refuse(client, Reason.MODE_NOT_SUPPORTED, f"{client.transport_protocol} in mode {mode}")
            return
        counts = self._counts(mode)
        too_many = self._admit(counts, client.peername[0], mode)
        self._admitted[client.id] = counts
        self.tell_open(self.open_connections)
        if too_many:
            self._refuse(client, Reason.TOO_MANY_CONNECTIONS, too_many)
            return
        if self.relaying or mode == DNS:
            take_over(_handler(client))
        else:
            self.inspected.take_over(_handler(client), _original(client))

    @refusing(nothing)
    def client_disconnected(self, client: connection.Client) -> None:
        counts = self._admitted.pop(client.id, None)
        if counts is not None:
            counts.leave(client.peername[0])
            self.tell_open(self.open_connections)

    @refusing(_end_relay)
    async def egress_relay(self, data: RelayData) -> None:
        if data.client.proxy_mode.type_name == DNS:
            await serve_questions(self.name_server, Input(data.reader), data.writer, client_of(data.client.peername))
            return
        if self.contexts is None:
            raise RuntimeError("the gateway has not been configured")
        client = Client(self.gate, Input(data.reader), data.writer, data.client.peername[:2], _original(data.client))
        await serve(client, data.client.proxy_mode.type_name, self.contexts)

    # --- clients that the runner has accepted ---

    async def serve_accepted(self, sock: socket.socket, peer: tuple[str, int], mode: str) -> None:
        """Serves one client to its end, in a task of its own; `sock` is ours from here on. Raises CancelledError only.

        `peer` is as the socket says it, `mode` one of the modes that are relayed, or dns.
        """
        address = peer[0]
        blocking = blocked_by(address, self.blocks_global, self.blocks_private)
        if blocking:
            logger.warning("Client connection from %s killed by %s option.", address, blocking)
            sock.close()
            return
        counts = self._counts(mode)
        too_many = self._admit(counts, address, mode)
        connection = None
        task = asyncio.current_task()
        assert task is not None
        try:
            if too_many:
                self._count_refused(peer, Reason.TOO_MANY_CONNECTIONS, too_many)
                return
            try:
                original = _dialled(sock, mode)
            except OSError:
                self._count_refused(peer, Reason.MODE_NOT_SUPPORTED, "the connection was not redirected here")
                return
            connection = Connection(sock)
            client = Guest(self.gate, Input(connection), connection, peer, original)
            self._serving[task] = client
            self.tell_open(self.open_connections)
            if mode == DNS:
                await serve_questions(self.name_server, client.input, connection, client_of(peer))
            elif self.contexts is None:
                raise RuntimeError("the gateway has not been configured")
            else:
                await serve(client, mode, self.contexts)
        except Exception:
            self.gate.failed("serve_accepted")
        finally:
            self._serving.pop(task, None)
            self.tell_open(self.open_connections)
            counts.leave(address)
            if connection is not None:
                abort(connection)  # nothing to do where it was served to its end
            else:
                sock.close()

    def turn_away(self, sock: socket.socket, peer: tuple[str, int], mode: str) -> None:
        """There is no room for this client: it is told so where it can be, and let go."""
        most = self.gate.settings.limits.connections
        full = bool(most) and self.open_connections + self.elsewhere() >= most
        self.gate.observer.turned_away("max_connections" if full else "descriptors")
        exchange = self.gate.begin(peer)
        exchange.detail = "no room for more connections"
        exchange.verdict = self.gate.refused(Reason.TOO_MANY_CONNECTIONS, "unknown")
        if mode != "regular" or len(self._turning_away) >= _MOST_TOLD:
            self.gate.finish(exchange)
            sock.close()
            return
        task = asyncio.create_task(self._turn_away(sock, peer, exchange))
        if not task.done():
            self._turning_away.add(task)
            task.add_done_callback(self._turning_away.discard)

    async def _turn_away(self, sock: socket.socket, peer: tuple[str, int], exchange: Exchange) -> None:
        connection = Connection(sock)
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await refuse_http(Client(self.gate, Input(connection), connection, peer), exchange)
        except (OSError, TimeoutError):
            abort(connection)
        finally:
            self.gate.finish(exchange)
            await finish(connection)

    def end_idle(self) -> int:
        """Ends the connections on which nothing is going on; returns how many others there are."""
        busy = 0
        for task, client in list(self._serving.items()):
            if client.is_idle:
                task.cancel()
            else:
                busy += 1
        return busy + self.inspected.end_idle()

    async def end_all(self, patience: float) -> None:
        """Ends every connection that the runner has accepted, and waits for that, `patience` seconds at most."""
        ending = list(self._serving)
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=patience)

    # --- admission ---

    def _counts(self, mode: str) -> _Counts:
        # Names are asked for on the way to a connection, which they must not use up.
        return self.name_server if mode == DNS else self.gate

    def _admit(self, counts: _Counts, address: str, mode: str) -> str:
        """Counts one more connection of a client; why there may not be one more, or the empty string."""
        if not counts.admit(address):
            return f"more than {self._most(mode)} connections"
        most = self.gate.settings.limits.connections
        if most and self.open_connections + self.elsewhere() >= most:
            return f"more than {most} connections of all clients"
        return ""

    def _show(self, exchange: Exchange) -> None:
        """Questions make no flows: where flows are looked at, a refused one is a line of the event log."""
        if not self.relaying:
            logger.info("egress: %s", describe(exchange))

    def _refuse(self, client: connection.Client, reason: Reason, detail: str) -> None:
        self._count_refused(client.peername[:2], reason, detail)
        client.error = REFUSED

    def _count_refused(self, peer: tuple[str, int], reason: Reason, detail: str) -> None:
        exchange = self.gate.begin(peer)
        exchange.detail = detail
        exchange.verdict = self.gate.refused(reason, "unknown")
        self.gate.finish(exchange)

    def _most(self, mode: str) -> int:
        settings = self.gate.settings
        return settings.name_server.connections_per_client if mode == DNS else settings.limits.connections_per_client


def _dialled(sock: socket.socket, mode: str) -> tuple[Address, int] | None:
    """Where a redirected client dialled; None in modes where it says so itself. Raises OSError."""
    if mode != "transparent":
        return None
    address, port = original_addr(sock)
    return ip_address(address), port


def _handler(client: connection.Client) -> ConnectionHandler:
    handler: ConnectionHandler = ctx.master.addons.get("proxyserver").connections[client.id]
    return handler


def _original(client: connection.Client) -> tuple[Address, int] | None:
    """Where a transparent client dialled; None in explicit modes."""
    if client.proxy_mode.type_name in ("regular", "socks5"):
        return None
    address = _handler(client).layer.context.server.address
    if address is None:
        raise RuntimeError("the original destination of a transparent connection is not known")
    return ip_address(address[0]), address[1]
