"""One worker's life: from the fork, with everything loaded, to the end of its last client.

It is ready when its rules are loaded, and only then has listening sockets; they are its own, so that they go with it.
SIGTERM ends it when its clients are done, or when their time is over; a second one at once. SIGHUP reads the rules.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from mitmproxy.exceptions import OptionsError
from mitmproxy.master import Master
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.utils import asyncio_utils

from egress_gateway.gate.quotas import Quotas
from egress_gateway.hooks.gateway import EgressGateway, MakeObservation
from egress_gateway.hooks.gateway import Worker as Member
from egress_gateway.hooks.modes import DNS

from . import scripts
from .accepting import Acceptor, Room, Serve
from .board import Board, State
from .lean import make_lean
from .loops import Loop
from .places import Place
from .plan import Listener
from .processes import hear_hangups

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.02
"""Seconds between two looks at whether connections are idle by now, while draining."""
DONE = 10
"""Exit status of a worker that has done what mitmproxy was asked to do, e.g. read a file of flows."""
_PATIENCE = 1.0
"""Seconds in which connections that are ended have to end."""


@dataclass(frozen=True, slots=True)
class Post:
    """All that a worker has from the supervisor."""

    number: int
    restarted: bool
    master: Master
    gateway: EgressGateway
    listener: Listener
    loop: Loop
    places: Sequence[Place]
    ports: frozenset[int]
    names: int | None
    quotas: Quotas
    make_observation: MakeObservation
    board: Board
    drain_timeout: float
    backlog: int
    most_connections: int
    """Of all workers together; 0: as many as there are descriptors for."""
    tell: Callable[[], None]
    """Wakes the supervisor, which then looks at the board."""


def work(post: Post) -> int:
    """Runs to the end; returns an exit status."""
    with asyncio.Runner(loop_factory=post.loop.make) as runner:
        return runner.run(_Worker(post).run())


class _Worker:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._master = post.master
        self._gateway = post.gateway
        self._guard = post.gateway.guard
        self._acceptors: list[Acceptor] = []
        self._servers: list[Any] = []
        self._unsaid: list[str] = []
        """Where mitmproxy listens, until clients are let in."""
        self._asked_to_end = asyncio.Event()
        self._at_once = asyncio.Event()

    async def run(self) -> int:
        post, loop = self._post, asyncio.get_running_loop()
        self._master.event_loop = loop
        if post.listener is not Listener.MITMPROXY:
            _log_what_is_shown(self._master)
            make_lean(self._master)
        post.gateway.join(
            Member(
                number=post.number,
                restarted=post.restarted,
                make_observation=post.make_observation,
                names=post.names,
                ports=post.ports,
                let_in=self._let_in,
            )
        )
        post.gateway.gate.quotas = post.quotas
        self._guard.elsewhere = partial(post.board.open_elsewhere, post.number)
        self._guard.tell_open = partial(post.board.set_open_connections, post.number)
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGHUP, post.gateway.reload)
        hear_hangups()
        with ExitStack() as stack:
            stack.enter_context(asyncio_utils.install_exception_handler(self._master._asyncio_exception_handler))
            if not await self._load_scripts():
                return 1
            stack.enter_context(asyncio_utils.set_eager_task_factory())
            return await self._live()

    async def _load_scripts(self) -> bool:
        """Whether they are there. With an error of its own a script is fatal at the start, and not any more later."""
        if self._post.listener is not Listener.MITMPROXY:
            return True
        try:
            await scripts.load(self._master)
        except OptionsError as error:
            logger.error("%s", error)
            return False
        return not self._errors or self._post.restarted

    async def _live(self) -> int:
        try:
            if not await self._start():
                return 0 if self._asked_to_end.is_set() else 1
            await asyncio.wait(
                [asyncio.create_task(self._asked_to_end.wait()), asyncio.create_task(self._master.should_exit.wait())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._post.board.set_state(self._post.number, State.ENDING)
            await self._drain()
            return 0 if self._asked_to_end.is_set() else DONE
        finally:
            await self._master.done()

    async def _start(self) -> bool:
        """Whether it is ready."""
        starting = asyncio.create_task(self._start_all())
        ending = asyncio.create_task(self._asked_to_end.wait())
        await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            return False
        ending.cancel()
        return starting.result() and self._post.board.state(self._post.number) is State.READY

    async def _start_all(self) -> bool:
        if self._post.listener is Listener.MITMPROXY:
            proxyserver = self._master.addons.get("proxyserver")
            with _kept_back(logging.getLogger(ServerInstance.__module__), self._unsaid):
                await proxyserver.setup_servers()
            if self._errors:
                return False
        await self._master.running()
        return not self._errors or self._post.restarted

    @property
    def _errors(self) -> bool:
        """Whether an error was logged since the gateway began."""
        return bool(self._master.addons.get("errorcheck").logger.has_errored)

    # --- clients ---

    def _let_in(self) -> None:
        """Raises OSError."""
        post = self._post
        room = Room(lambda: self._guard.open_connections, self._guard.elsewhere, post.most_connections)
        proxyserver = self._master.addons.get("proxyserver")
        for place in post.places:
            if place.is_datagram:
                self._servers.append(post.gateway.serve_questions(place.held))
                continue
            serve: Serve = self._guard.serve_accepted
            if post.listener is Listener.LAYERS and place.mode != DNS:
                serve = _with_layers(ServerInstance.make(place.spec, proxyserver))
            self._acceptors.append(Acceptor(place.listen(post.backlog), place.mode, room, serve, self._guard.turn_away))
        for said in self._unsaid:
            logger.info("%s", said)
        post.board.set_state(post.number, State.READY)
        post.tell()

    # --- the end ---

    def _on_sigterm(self) -> None:
        if self._asked_to_end.is_set():
            self._at_once.set()
        self._asked_to_end.set()

    def _servers_of_mitmproxy(self) -> list[asyncio.Server]:
        """Those that can be closed without what has come through them."""
        instances = self._master.addons.get("proxyserver").servers
        opened = [server for instance in instances for server in getattr(instance, "_servers", ())]
        return [server for server in opened if isinstance(server, asyncio.Server)]

    async def _drain(self) -> None:
        self._gateway.gate.draining = True
        for server in (*self._acceptors, *self._servers, *self._servers_of_mitmproxy()):
            server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._post.drain_timeout
        while (busy := self._guard.end_idle()) and loop.time() < deadline and not self._at_once.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), _LOOK_EVERY)
        self._post.board.set_left(self._post.number, busy)
        await self._guard.end_all(0 if self._at_once.is_set() else _PATIENCE)


def _with_layers(instance: ServerInstance[Any]) -> Serve:
    """Hands clients to mitmproxy's own handler of connections."""

    async def serve(sock: socket.socket, _: tuple[str, int], __: str) -> None:
        sock.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
        except OSError:
            sock.close()
            return
        if writer.get_extra_info("peername") is None:  # reset before it was accepted; mitmproxy would stumble over it
            writer.transport.abort()
            return
        await instance.handle_stream(reader, writer)

    return serve


@contextmanager
def _kept_back(source: logging.Logger, unsaid: list[str]) -> Iterator[None]:
    """What `source` has to say goes to `unsaid` in place of the log, unless something is wrong."""

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        unsaid.append(record.getMessage())
        return False

    source.addFilter(keep)
    try:
        yield
    finally:
        source.removeFilter(keep)


def _log_what_is_shown(master: Master) -> None:
    """Nobody but the terminal listens, so what it does not show need not be made."""
    master._legacy_log_events.uninstall()
    if master._termlog_addon is not None:
        logging.getLogger().setLevel(master._termlog_addon.logger.level)
