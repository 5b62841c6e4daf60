"""`scripts/gateway-up`: verify everything, start what is to be started, then load the table in one transaction.

The order matters. The gateway is ready before the first packet is sent to it. The table is the only change to the
machine's network; after it comes but the keeper, which needs it. Whatever fails, all that was done is taken back.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import checks, gateway_process, keeper_process, machine
from .command_line import UpRequest, parse_up
from .gateway_process import Readiness
from .layout import Layout
from .machine import User
from .nft import Nft
from .ports import listed, read_ports
from .processes import Process
from .ruleset import TABLE, remove, render
from .state import Installed, State, namespace
from .terminal import Failure, Teller

COMMAND = "gateway-up"


@dataclass(frozen=True, slots=True)
class _SetUp:
    """The steps, and how each of them is taken back."""

    request: UpRequest
    layout: Layout
    user: User | None
    nft: Nft
    state: State
    tell: Teller
    undo: contextlib.ExitStack

    def run(self, ports: frozenset[int], text: str) -> dict[str, Any]:
        before = self.state.installed()
        gateway = _running(self.state.gateway)
        if before is None and gateway is None:
            self.undo.callback(self.state.clear)
        command = before.command if before else ()
        if self.request.start:
            assert self.user is not None  # the command line has seen to it
            gateway, command = self._gateway(gateway, command, self.user)
        checks.listening(self.request, self.layout, self.tell.warn)
        self._end_keeper(before)
        self._note(before, Installed(self.layout, self.request.rules, namespace(), command))
        self._load(ports, text)
        following = keeper_process.start(self.state) if self.request.follow else None
        if following:
            self.tell.step(f"following {self.request.rules}: the ports change as the rules do (pid {following.pid})")
        return {"keeper": following and following.pid, "gateway": gateway and gateway.pid}

    def _gateway(
        self, running: Process | None, before: Sequence[str], user: User
    ) -> tuple[Process | None, tuple[str, ...]]:
        """The gateway that runs then, and what it was started with."""
        request = self.request
        arguments = gateway_process.command(
            self.layout.proxy_port, self.layout.dns_port, request.rules, request.metrics, request.more
        )
        wanted = (user.name, *arguments)
        if running:
            if tuple(before) != wanted:
                other = f"a gateway with other arguments runs already, pid {running.pid}"
                raise Failure(f"{other} (gateway-down ends it)")
            self.tell.step(f"the gateway runs already (pid {running.pid})")
            return running, wanted
        checks.can_start(request, user)
        home = gateway_process.home_of(user, self.state.home)
        log = self.state.gateway_log
        started = gateway_process.start(arguments, user, home, log)
        process = Process.of(started.pid)
        if process:
            self.undo.callback(started.wait)
            self.undo.callback(process.stop)
            process.write(self.state.gateway)
            self.undo.callback(self.state.gateway.unlink)
        gateway_process.wait_ready(started, Readiness.parse(request.metrics), log, request.ready_timeout)
        self.tell.step(f"the gateway is ready, as user {user.name} (pid {started.pid}, log in {log})")
        return process, wanted

    def _end_keeper(self, before: Installed | None) -> None:
        """Two keepers would each put back what the other one does."""
        earlier = _running(self.state.keeper)
        if earlier and earlier.stop() and before:
            self.undo.callback(keeper_process.start, self.state)

    def _note(self, before: Installed | None, now: Installed) -> None:
        if before:
            self.undo.callback(self.state.write, before)
        self.state.write(now)

    def _load(self, ports: frozenset[int], text: str) -> None:
        before = self.nft.table()
        self.undo.callback(self.nft.load, remove() + (before or ""))
        self.nft.load(text)
        if self.nft.ports() != ports:
            raise Failure(f"table {TABLE} does not hold what was loaded (is another program changing it?)")
        self.tell.step(f"loaded nftables table {TABLE}{' in the place of the one before' if before else ''}")
        for line in _about(self.layout, self.user):
            self.tell.step(line)
        self.tell.step(f"TCP ports redirected: {listed(ports)}")


def main(arguments: Sequence[str]) -> int:
    tell = Teller(COMMAND)
    return tell.status_of(lambda: _up(parse_up(arguments), tell), interrupted="everything is taken back")


def _up(request: UpRequest, tell: Teller) -> None:
    ports = read_ports(request.rules)
    layout, user = checks.complete(request, tell.warn)
    text = render(layout, ports)
    summary = {"table": TABLE, "ports": sorted(ports), "rules": request.rules, "ipv6": not machine.ipv6_is_off()}
    summary |= layout.to_json()
    if request.dry_run:
        print(json.dumps(summary | {"ruleset": text, "warnings": tell.warnings}) if request.json else text.rstrip())
        return
    checks.root(COMMAND)
    nft = Nft.find()
    checks.kernel(nft, text)
    if machine.ipv6_is_off():
        tell.step("IPv6 is switched off on this machine: going on with IPv4 only")
    state = State(request.state)
    with _not_halfway(), state.locked(), contextlib.ExitStack() as undo:
        checks.same_namespace(state)
        processes = _SetUp(request, layout, user, nft, state, tell, undo).run(ports, text)
        undo.pop_all()
    if request.json:
        print(json.dumps(summary | processes | {"warnings": tell.warnings}))


def _about(layout: Layout, user: User | None) -> Iterator[str]:
    inside, outside = ", ".join(layout.inside), f" (outside: {layout.outside})" if layout.outside else ""
    whose = [f"what comes in by {inside}{outside}"] if inside else []
    if layout.sidecar and user:
        whose.append(f"programs of this host, but for those of user {user.name}")
    yield f"clients are {' and '.join(whose)}"
    yield f"DNS goes to port {layout.dns_port}, TCP to port {layout.proxy_port}, everything else is refused"
    if layout.inside and machine.forwards():
        yield "this machine forwards, which the gateway does not need: without the table, clients would pass"
    if layout.kept:
        yield f"this host stays reachable from inside at {', '.join(map(str, layout.kept))}"


def _running(file: Any) -> Process | None:
    process = Process.read(file)
    return process if process and process.runs else None


@contextlib.contextmanager
def _not_halfway() -> Iterator[None]:
    """Meanwhile a signal to end takes everything back, and a lost terminal (SIGHUP) does not even do that."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
