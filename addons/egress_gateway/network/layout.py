"""What was asked of the packet filter, as one frozen value. Nothing here looks at the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ICMP = "icmp"
TRANSPORTS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class Kept:
    """Something of the gateway's own addresses that stays reachable from inside, such as `tcp/22` or `icmp`."""

    protocol: str
    """`tcp`, `udp`, or `icmp`, which means echo requests."""
    port: int = 0
    """0 where the protocol has none."""

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else self.protocol


@dataclass(frozen=True, slots=True)
class Layout:
    """Where clients are and where they are sent.

    At least one of `inside` and `exempt_uid` is there, names and ports are sound, and the two ports differ: whoever
    makes one has seen to that.
    """

    inside: tuple[str, ...]
    """Interfaces that clients are behind; empty when only programs of this host are."""
    proxy_port: int
    dns_port: int
    outside: str = ""
    """The interface the gateway's own connections leave by; empty where nobody said."""
    kept: tuple[Kept, ...] = ()
    exempt_uid: int | None = None
    """In the single-host form the gateway's own user, who alone goes out directly; else None."""
    served: tuple[int, ...] = ()
    """TCP ports that programs of this host listened on; what others had opened to them goes on."""

    @property
    def sidecar(self) -> bool:
        return self.exempt_uid is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "inside": list(self.inside),
            "outside": self.outside,
            "proxyPort": self.proxy_port,
            "dnsPort": self.dns_port,
            "kept": [str(kept) for kept in self.kept],
            "exemptUid": self.exempt_uid,
            "served": list(self.served),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` was of. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            inside=tuple(data["inside"]),
            outside=data["outside"],
            proxy_port=data["proxyPort"],
            dns_port=data["dnsPort"],
            kept=tuple(parse_kept(text) for text in data["kept"]),
            exempt_uid=data["exemptUid"],
            served=tuple(data["served"]),
        )


def parse_port(text: str) -> int:
    """Raises ValueError, which says what to write."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"{text!r} is not a port (use 1-65535)")


def parse_kept(text: str) -> Kept:
    """Raises ValueError, which says what to write."""
    protocol, slash, port = text.strip().lower().partition("/")
    if protocol == ICMP and not slash:
        return Kept(ICMP)
    if protocol in TRANSPORTS and slash:
        return Kept(protocol, parse_port(port))
    raise ValueError(f"{text!r} is nothing to keep (write tcp/22, udp/123 or icmp)")
