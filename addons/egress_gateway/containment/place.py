"""Where the gateway stands, seen from here: how many hops away, and by which addresses it speaks.

Both are measured, since a client knows neither. The distance is that of the nearest machine which takes a connection
to port 80 of an address outside; next door this is enough, further away it must also refuse as the gateway does. The
addresses are those that errors about packets carry whose time to live ends there.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from .attempt import datagram, stream
from .attempt.family import Family, socket_address
from .attempt.heard import Kind
from .routes import default_router
from .spoken import http

_FURTHEST = 3
# The whole must stay below a second of patience. Next door a kernel takes a connection, further away a gateway has to
# think.
_NEXT_DOOR, _FURTHER = 0.15, 0.3
_UNUSED_PORT = 33434  # where traceroute begins


@dataclass(frozen=True)
class Place:
    hops: int
    """A packet whose time to live is this reaches the gateway and nobody behind it."""
    addresses: tuple[str, ...]
    """The sender of an ICMP error is the gateway if it is one of these; the first is the one to speak to and of."""
    own: str
    """This machine's own address: in the single-host form the gateway's rules refuse right here."""
    found: bool = True
    """Whether the gateway answered as one; if not, it is taken to be next door."""

    @property
    def address(self) -> str:
        return self.addresses[0] if self.addresses else ""

    def is_gateway(self, address: str) -> bool:
        return address == self.own or address in self.addresses


def locate(
    family: Family, target: str, denied_name: str, given: str | None = None, patience: float = 1.0
) -> Place | None:
    """The place of the gateway on the way to `target`; None when this machine has no route to there.

    `given` is the gateway's address if the user told it. Takes `patience` seconds at most.
    """
    own = _own_address(family, target)
    if own is None:
        return None
    hops = _distance(target, denied_name, patience)
    router = default_router(family) if (hops or 1) == 1 else None
    speaks = _speaker(family, target, hops or 1, patience)
    # What it speaks by comes before the default route, which for IPv6 often is a link-local address.
    addresses = [address for address in (given, speaks, router) if address and address != own]
    return Place(hops or 1, tuple(dict.fromkeys(addresses)), own, found=hops is not None)


def _own_address(family: Family, target: str) -> str | None:
    try:
        with socket.socket(family.number, socket.SOCK_DGRAM) as sock:
            sock.connect(socket_address(target, _UNUSED_PORT))  # sends nothing
            own: str = sock.getsockname()[0]
            return own
    except OSError:
        return None


def _distance(target: str, denied_name: str, patience: float) -> int | None:
    for hops in range(1, _FURTHEST + 1):
        heard = stream.ask(
            target,
            http.PORT,
            http.request(denied_name),
            time.monotonic() + (_NEXT_DOOR if hops == 1 else _FURTHER) * patience,
            hops=hops,
            complete=http.complete,
        )
        if heard.connected and (hops == 1 or http.is_signed(heard.data)):
            return hops
    return None


def _speaker(family: Family, target: str, hops: int, patience: float) -> str | None:
    sock = socket.socket(family.number, socket.SOCK_DGRAM)
    until = time.monotonic() + _NEXT_DOOR * patience
    heard = datagram.ask(sock, family, target, _UNUSED_PORT, bytes(8), until, hops=hops)
    return heard.by if heard.kind in (Kind.EXPIRED, Kind.ERROR) and heard.by else None
