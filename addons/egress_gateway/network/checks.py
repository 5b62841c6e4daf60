"""All that is verified before the first change. A check raises `Failure`: one line, what is wrong and the fix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from . import machine, sockets
from .command_line import UpRequest
from .gateway_process import Readiness, check_user
from .layout import Layout
from .machine import User
from .nft import Nft, NftError
from .processes import Process
from .state import State, namespace
from .terminal import Failure

Warn = Callable[[str], None]
_NAME_SERVERS = "egress_dns_servers"


def root(command: str) -> None:
    if os.geteuid() != 0:
        raise Failure(f"{command} changes the packet filter and needs root (run it with sudo)")


def complete(request: UpRequest, warn: Warn) -> tuple[Layout, User | None]:
    """The layout with what only this machine knows, and the gateway's user where one was named."""
    _interfaces(request.layout, warn)
    user = machine.ordinary_user(request.user) if request.user else None
    layout = request.layout
    if request.sidecar:
        assert user is not None  # the command line has seen to it
        own = {layout.proxy_port, layout.dns_port}
        layout = replace(layout, exempt_uid=user.uid, served=tuple(sorted(sockets.served_ports() - own)))
    return layout, user


def _interfaces(layout: Layout, warn: Warn) -> None:
    known = machine.interfaces()
    for name in filter(None, (*layout.inside, layout.outside)):
        if name not in known:
            raise Failure(f"there is no interface {name} (there are: {', '.join(sorted(known))})")
    for name in layout.inside:
        if master := machine.master_of(name):
            raise Failure(f"{name} is a port of {master}, by which its packets come in (use --inside {master})")
        if not machine.has_ipv4(name):
            warn(f"{name} has no IPv4 address, so clients there are not served over IPv4")
        if not machine.ipv6_is_off() and not machine.has_ipv6(name):
            warn(f"{name} has no IPv6 address, so clients there are not served over IPv6")
        if machine.leaves_by(name):
            warn(f"the default route leaves by {name} too, so clients there can claim to be anybody outside")
    if layout.outside and not machine.leaves_by(layout.outside):
        warn(f"no default route leaves by {layout.outside}")


def kernel(nft: Nft, text: str) -> None:
    """Whether nft and the kernel take the very text that is to be loaded."""
    try:
        nft.check(text)
    except NftError as error:
        # Before Linux 5.9 packets could not be rejected as they come in.
        needed = "needs Linux 5.9 or newer with nft_reject_inet" if "reject" in str(error) else "cannot be loaded here"
        raise Failure(f"the packet filter {needed}: {error}") from None


def same_namespace(state: State) -> None:
    """What an earlier gateway-up has left must be of this very network."""
    installed = state.installed()
    if installed is not None and installed.namespace != namespace() and _something_runs(state):
        raise Failure(
            f"{state.directory} is in use by a gateway in another network namespace (name another --state-dir)"
        )


def _something_runs(state: State) -> bool:
    return any(process.runs for file in (state.keeper, state.gateway) if (process := Process.read(file)))


def can_start(request: UpRequest, user: User) -> None:
    """Whether `user` can run the gateway, and nobody holds its ports."""
    layout = request.layout
    for option, port in (("--proxy-port", layout.proxy_port), ("--dns-port", layout.dns_port)):
        lowest = machine.first_ordinary_port()
        if port < lowest:
            raise Failure(f"user {user.name} may not listen on port {port} (choose {option} {lowest} or higher)")
    metrics = Readiness.parse(request.metrics)
    wanted = (
        ("tcp", layout.proxy_port, "--proxy-port"),
        ("tcp", layout.dns_port, "--dns-port"),
        ("udp", layout.dns_port, "--dns-port"),
        ("tcp", metrics.port, "--metrics-listen"),
    )
    for transport, port, option in wanted:
        for listener in sockets.listeners(transport, port):
            held = f"{transport.upper()} port {port} is taken by {listener}"
            raise Failure(f"{held} (end it, or choose another {option})")
    if request.sidecar and not _names(request.more) and (loop := _loop_of_names(user.uid)):
        fix = f"name one outside: -- --set {_NAME_SERVERS}=ADDRESS"
        raise Failure(f"the gateway would loop: {loop} ({fix})")
    check_user(user, request.rules)


def listening(request: UpRequest, layout: Layout, warn: Warn) -> None:
    """Whether the gateway is there, and of the user that is exempt: another one's connections would come back to it."""
    for transport, port, what in (("tcp", layout.proxy_port, "proxy"), ("udp", layout.dns_port, "DNS")):
        found = sockets.listeners(transport, port)
        if layout.sidecar:
            for listener in found:
                if listener.uid != layout.exempt_uid:
                    fix = f"run it as {request.user}, or name its own user with --user"
                    raise Failure(f"the gateway would loop: {what} port {port} is held by {listener} ({fix})")
        if not found:
            warn(f"nothing listens on {what} port {port} yet: clients are refused until the gateway runs")
        elif layout.inside and all(listener.address.is_loopback for listener in found):
            fix = f"leave out --listen-host, or give an address of {layout.inside[0]}"
            warn(f"{what} port {port} is listened to on loopback only, which clients do not reach ({fix})")
    if layout.sidecar and layout.exempt_uid is not None and not request.start:
        asks = sockets.listeners("udp", layout.dns_port)
        loop = _loop_of_names(layout.exempt_uid)
        if loop and not any(_names(listener.arguments) for listener in asks):
            warn(f"{loop} (give the gateway one outside: --set {_NAME_SERVERS}=ADDRESS)")


def _names(arguments: Iterable[str]) -> bool:
    """Whether a gateway with these arguments asks name servers of its own."""
    return any(f"{_NAME_SERVERS}=" in argument for argument in arguments)


def _loop_of_names(exempt: int) -> str:
    """What makes questions go round, if they do: a name server here is a program of this host like any other one.

    Unless it is of the gateway's own user, what it asks is redirected to the gateway, which asks it.
    """
    local = sockets.listeners("udp", 53)
    for server in machine.own_name_servers():
        at = [listener for listener in local if listener.address == server or listener.address.is_unspecified]
        if not any(listener.uid == exempt for listener in at):
            return f"name server {server} of /etc/resolv.conf is on this host, and its questions come to the gateway"
    return ""
