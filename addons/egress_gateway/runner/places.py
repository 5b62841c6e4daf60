"""Where to listen, and that nobody else listens there.

Workers listen on one port by SO_REUSEPORT, each with sockets of its own: those of a worker that dies are closed with
it, and the kernel sends new clients to the others. Since SO_REUSEPORT would also let a second gateway of the same user
take half of the clients, the supervisor first binds each port for itself alone, and lets its workers join then. It
does not listen on these sockets; it holds them so that the port stays its own.

UDP has one socket for all: whoever of the workers is first takes a question, and none is lost with a worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mitmproxy.proxy.mode_specs import ProxyMode

from egress_gateway.nameserver.datagrams import bind as bind_datagrams

_TRIES = 16
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class Taken(Exception):
    """Ports that cannot be had; each of `args` is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Place:
    """One address of one mode. `held` is bound, and the supervisor's for TCP."""

    mode: str
    """The mode's type name."""
    spec: str
    """The mode as the user wrote it."""
    held: socket.socket

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.held.getsockname()[:2]
        return host, port

    @property
    def is_datagram(self) -> bool:
        return self.held.type == socket.SOCK_DGRAM

    def listen(self, backlog: int) -> socket.socket:
        """Another socket on the same address, to accept clients from. Raises OSError."""
        sock = socket.socket(self.held.family, socket.SOCK_STREAM)
        try:
            # Connections that are over but not forgotten must not keep the next gateway from starting.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What is small goes out at once. Whoever is accepted here has it as well.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _bind(sock, self.held.getsockname(), shared=True)
            sock.listen(backlog)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock


def hold_all(modes: Iterable[ProxyMode], default_host: str, default_port: int | None) -> list[Place]:
    """Takes every address of all `modes`. Raises Taken with all that cannot be had, and then none is."""
    held: list[Place] = []
    told: list[str] = []
    for mode in modes:
        try:
            held += hold(mode, default_host, default_port)
        except Taken as taken:
            told += taken.args
    if told:
        release(held)
        raise Taken(*told)
    return held


def release(places: Iterable[Place]) -> None:
    for place in places:
        place.held.close()


def hold(mode: ProxyMode, default_host: str, default_port: int | None) -> list[Place]:
    """Takes every address of `mode`. Raises Taken."""
    host, port = mode.listen_host(default_host), mode.listen_port(default_port) or 0
    try:
        for _ in range(_TRIES):
            try:
                return _hold(mode, host, port)
            except OSError as error:
                # A port that the system chose for one address need not be free on the other one.
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return _hold(mode, host, port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise Taken(
            f"{mode.description} failed to listen on {_written(host, port)}: {why.lower()} "
            f"(choose another address: --mode {mode.full_spec.partition('@')[0]}@HOST:PORT)"
        ) from None


def _hold(mode: ProxyMode, host: str, port: int) -> list[Place]:
    places: list[Place] = []
    try:
        if mode.transport_protocol in ("tcp", "both"):
            for family, address in _addresses(host, port, socket.SOCK_STREAM):
                _hold_one(places, mode, family, address)
        if mode.transport_protocol in ("udp", "both"):
            found = _addresses(host, port, socket.SOCK_DGRAM)
            for family, address in found if not host else found[:1]:
                _hold_one(places, mode, family, address, datagrams=True)
    except BaseException:
        release(places)
        raise
    return places


def _hold_one(places: list[Place], mode: ProxyMode, family: int, address: Any, *, datagrams: bool = False) -> None:
    if address[1] == 0 and places:
        address = (address[0], places[0].address[1], *address[2:])  # one port for all addresses
    try:
        held = bind_datagrams(family, address) if datagrams else _bind_alone(family, address)
    except OSError as error:
        if places and family == socket.AF_INET6 and error.errno in _NO_FAMILY:
            return  # a machine without IPv6
        raise
    places.append(Place(mode.type_name, mode.full_spec, held))


def _addresses(host: str, port: int, kind: socket.SocketKind) -> list[tuple[int, Any]]:
    """Raises OSError. An empty host is every address of both families."""
    if not host:
        return [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port))]  # noqa: S104  # as asked for
    found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind_alone(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(sock, address, shared=False)
        # From here on workers may share the port, and no other gateway can bind it alone.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, address: Any, *, shared: bool) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)


def describe(places: Iterable[Place], mode: ProxyMode) -> str:
    """`HTTP(S) proxy listening at 127.0.0.1:8080.`"""
    addresses = dict.fromkeys(_written(*place.address) for place in places if place.spec == mode.full_spec)
    return f"{mode.description} listening at {' and '.join(addresses)}."


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
