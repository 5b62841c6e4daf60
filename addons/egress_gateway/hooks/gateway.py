"""The gateway's life cycle: options in, everything started and stopped. Its rules are `rules_in_force`'s.

At the start every problem is fatal and all of them are printed. After the start nothing is.

mitmproxy runs one gateway in one process. The runner begins it once and then forks: each worker `join`s, which makes
anew whatever counts, resolves or holds a file, and lets clients in when it is ready.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mitmproxy import ctx
from mitmproxy.exceptions import OptionsError
from mitmproxy.version import VERSION as MITMPROXY_VERSION

from egress_gateway.config.beside import settle
from egress_gateway.dns.resolver import Resolver
from egress_gateway.dns.settings import ResolverSettings
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.name_journal import NameJournal
from egress_gateway.gate.names import Names
from egress_gateway.gate.settings import Settings
from egress_gateway.nameserver.datagrams import DatagramServer
from egress_gateway.policy.events import Observer
from egress_gateway.relay.upstream_tls import TlsContexts

from . import options, veto
from .data_path import DataPath, choose, flow_options_in_use
from .descriptors import raise_limit
from .dns_sockets import DnsSockets, is_admitted
from .guard import Guard
from .inspect.addon import InspectHooks
from .quiet import Quiet
from .rules_in_force import RulesInForce, Series

logger = logging.getLogger(__name__)

_READ_AT_THE_START = ("metrics_listen", "access_log", "rules", "names_file")
_SCRIPT_GONE = "addons/egress.py was deleted or no longer loads"


class Observation(Series, Protocol):
    """What watches the gateway. Whoever composes the gateway says what that is."""

    observer: Observer

    @property
    def ports(self) -> frozenset[int]: ...
    def show(self, level: int) -> None: ...
    async def start(self, not_ready: Callable[[], str | None]) -> None: ...
    async def stop(self) -> None: ...
    def reopen(self) -> None: ...


class MakeObservation(Protocol):
    def __call__(self, *, metrics_listen: str, access_log: str, terminal: bool, mitmproxy: str) -> Observation: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """What is different in one of several processes that serve together."""

    number: int
    restarted: bool
    """Whether it takes the place of one that died. It then waits for rules that load, since those that the gateway
    began with may allow what the others have long refused."""
    make_observation: MakeObservation
    names: int | None
    """Descriptor of the memory in which all of them share names; None: as `egress_names_file` says."""
    ports: frozenset[int]
    """That the gateway listens on, in whichever process."""
    let_in: Callable[[], None]
    """Called when it is ready for clients. Raises OSError."""


class EgressGateway:
    """The addon that owns all others of the gateway. Added to the master itself, not to a script."""

    name = "egressgateway"

    def __init__(self, make_observation: MakeObservation) -> None:
        self._make_observation = make_observation
        self._observation: Observation | None = None
        self._configuration: options.Configuration | None = None
        self._resolver = Resolver(ResolverSettings())
        self._quiet = Quiet()
        self._begun = False
        self._path_said = ""
        self.problems: list[str] = []
        """What was wrong while we were being loaded, when there is nobody to tell yet; fatal."""
        self._worker: Worker | None = None
        self.path: DataPath | None = None
        """The data path in use; None before `begin`."""
        self.gate = Gatekeeper(self._resolver, Observer(), Settings())
        self._rules = RulesInForce(self.gate)
        self.inspect = InspectHooks(self.gate)
        self.guard = Guard(self.gate, self.inspect.client_hooks)
        self._dns_sockets = DnsSockets(self.guard.name_server)
        self.addons = [self.guard, self.inspect]

    # --- mitmproxy's life cycle ---

    def load(self, loader: Any) -> None:
        self._dns_sockets.begin()
        options.declare(loader)
        by_hand = veto.set_by_the_operator(ctx.options, veto.CHANGED_DEFAULTS)
        self.problems += veto.holes(ctx.options, by_hand)
        ctx.options.update(**veto.CHANGED_DEFAULTS)

    def configure(self, updated: set[str]) -> None:
        if not self._begun:
            return  # everything is read at once in `begin`, when no option is still to come
        problems = veto.holes(ctx.options, [name for name in veto.WATCHED if name in updated])
        if problems:
            raise OptionsError("; ".join(problems))
        self._apply(options.read(ctx.options))

    def begin(self) -> None:
        """Reads all options and the rules for the first time. Logs every problem as an error, which is fatal then."""
        if self._begun:
            return
        problems = [*self.problems, *veto.holes(ctx.options, veto.WATCHED)]
        unknown = [name for name in ctx.options.deferred if name.startswith(options.PREFIX)]
        problems += [f"unknown option {name}{options.did_you_mean(name)}" for name in sorted(unknown)]
        try:
            self._apply(options.read(ctx.options))
        except OptionsError as error:
            problems.append(str(error))
        except Exception as error:
            # Whatever it is, mitmproxy would swallow it and go on starting.
            problems.append(f"the options cannot be read: {error!r}")
        else:
            problems += self._rules.load(self._configuration.rules) if self._configuration is not None else []
        for problem in problems:
            logger.error("egress gateway: %s", problem)
        self._begun = not problems

    async def running(self) -> None:
        if not self._begun or self._observation is None or self._configuration is None:
            return
        try:
            await self._observation.start(lambda: self.gate.closed_because)
        except OSError as error:
            logger.error("egress gateway: %s", error.strerror or error)
            return
        proxyserver = ctx.master.addons.get("proxyserver")
        if proxyserver is not None and not self._dns_sockets.are_ours(proxyserver.servers):
            logger.error("egress gateway: mode dns does not listen on the gateway's own sockets; nobody is served.")
            return
        self._learn_ports()
        self._quiet.begin()
        raise_limit()
        await self._rules.watch(self._configuration.rules)
        settle()
        if self._worker is None:
            self.gate.open()
            logger.info("egress gateway: ready.")
        else:
            await self._let_in(self._worker)

    # --- one of several processes ---

    def join(self, worker: Worker) -> None:
        """Makes this the gateway of one worker, in a process forked after `begin`. Raises OptionsError."""
        configuration = self._configuration
        if configuration is None:
            raise RuntimeError("a gateway that has not begun cannot join others")
        self._worker = worker
        self._rules.speaks = worker.number == 0
        self._make_observation = worker.make_observation
        self._observe(configuration)
        self._resolver = self._make_resolver(configuration)
        self.gate.names = _open_names(configuration, worker.names)
        self.gate.distinguish(f".{worker.number}")
        self._choose_path(configuration)
        if worker.restarted:
            self._rules.forget()
        else:
            self._rules.count()

    def reload(self) -> None:
        """Reads the rules now, and opens the access log anew."""
        self._rules.look()
        if self._observation is not None:
            self._observation.reopen()

    def serve_questions(self, sock: socket.socket) -> DatagramServer:
        """Answers the questions that come on a UDP socket, which it closes at the end."""
        return DatagramServer(self.guard.name_server, sock, is_admitted)

    async def _let_in(self, worker: Worker) -> None:
        if not self._rules.are_loaded:
            logger.error("egress gateway: worker %d lets nobody in before the rules load.", worker.number)
            await self._rules.loaded()
        self.gate.open()
        try:
            worker.let_in()
        except OSError as error:
            self.gate.close("nobody can be let in")
            logger.error("egress gateway: %s", error.strerror or error)

    # --- the end ---

    async def done(self) -> None:
        self.gate.close("the gateway is shutting down")
        self._quiet.end()
        self._dns_sockets.end()
        await self._rules.stop()
        await self._resolver.close()
        self.gate.names.close()
        if self._observation is not None:
            await self._observation.stop()

    # --- the script that brought us ---

    def attach(self) -> None:
        """The script is back: what it closed opens again."""
        if self._begun and self.gate.closed_because == _SCRIPT_GONE:
            self.gate.open()
            logger.info("egress gateway: addons/egress.py is loaded again.")

    def detach(self) -> None:
        """The script is gone: refuse everything from now on."""
        if self.gate.closed_because is None:
            self.gate.close(_SCRIPT_GONE)

    def end_if_detached(self) -> None:
        """Ends what is open, if the script has stayed away."""
        if self.gate.closed_because == _SCRIPT_GONE:
            logger.error("egress gateway: %s; everything is refused.", _SCRIPT_GONE)
            self.gate.end_all()

    # --- options ---

    def _apply(self, new: options.Configuration) -> None:
        """Takes new options in. Raises OptionsError, and then nothing has changed."""
        old = self._configuration
        if self._observation is None or old is None:
            self._observe(new)
        elif any(getattr(old, name) != getattr(new, name) for name in _READ_AT_THE_START):
            names = ", ".join(f"egress_{name}" for name in _READ_AT_THE_START)
            raise OptionsError(f"{names} are read at the start; start again")
        try:
            if old is None or old.settings.tls != new.settings.tls:
                self.guard.contexts = TlsContexts(new.settings.tls)
        except (OSError, ValueError) as error:
            raise OptionsError(f"TLS to destinations cannot be set up: {error}") from None
        if old is None or old.resolver != new.resolver:
            self._resolver = self._make_resolver(new)
        if old is None:
            self.gate.names = _open_names(new)
        self.gate.names.use(new.settings.names)
        self._configuration = new
        self.gate.settings = new.settings
        self.guard.blocks_global = ctx.options.block_global
        self.guard.blocks_private = ctx.options.block_private
        self._choose_path(new)

    def _observe(self, configuration: options.Configuration) -> None:
        try:
            self._observation = self._make_observation(
                metrics_listen=configuration.metrics_listen,
                access_log=configuration.access_log,
                terminal=ctx.master.addons.get("dumper") is not None,
                mitmproxy=MITMPROXY_VERSION,
            )
        except OSError as error:
            raise OptionsError(error.strerror or str(error)) from None
        except ValueError as error:
            raise OptionsError(str(error)) from None
        self.gate.observer = self._observation.observer
        self._rules.series = self._observation

    def _make_resolver(self, configuration: options.Configuration) -> Resolver:
        resolver = Resolver(configuration.resolver, on_lookup=self.gate.observer.looked_up)
        self.gate.resolver = resolver
        return resolver

    def _choose_path(self, configuration: options.Configuration) -> None:
        path = choose(
            configuration.data_path,
            has_flow_view=ctx.master.addons.get("view") is not None,
            flow_options=flow_options_in_use(ctx.options),
            other_scripts=options.other_scripts(ctx.options),
            tls=configuration.tls,
        )
        self.path = path
        self.guard.relaying = self._quiet.relaying = path.relay
        self.inspect.client_hooks.decrypts = configuration.tls == "inspect"
        if self._observation is not None:
            # Flows are shown by mitmdump's own dumper; the relay makes none.
            self._observation.show(configuration.flow_detail if path.relay else 0)
        if path.because != self._path_said:
            self._path_said = path.because
            logger.info("egress gateway: %s.", path.because)

    def _learn_ports(self) -> None:
        """Learns which ports this process listens on, so that it never dials itself."""
        ports = set(self._observation.ports) if self._observation else set()
        if self._worker is not None:
            ports |= self._worker.ports
        proxyserver = ctx.master.addons.get("proxyserver")
        if proxyserver is not None:
            ports.update(address[1] for address in proxyserver.listen_addrs())
        if "web_port" in ctx.options:
            ports.add(ctx.options.web_port)
        self.gate.own_ports = frozenset(ports)


def _open_names(configuration: options.Configuration, memory: int | None = None) -> Names:
    """Raises OptionsError where the file, or the memory of that descriptor, cannot be used."""
    path = configuration.names_file
    try:
        journal = NameJournal(Path(path)) if path else None
        if memory is not None and journal is None:
            journal = NameJournal.in_memory(memory)
        return Names(configuration.settings.names, journal)
    except (OSError, ValueError) as error:
        why = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise OptionsError(f"egress_names_file: {why}") from None
