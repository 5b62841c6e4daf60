"""What an operator may set about resolving, checked when it is set.

Without servers the gateway resolves as the system does (resolv.conf, hosts file, search list). With
servers it asks these and nothing else: no hosts file, no search list. What resolv.conf states for
`timeout` and `attempts` replaces what stands here; `total_timeout` always holds.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

type Server = tuple[str, int]

DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """All times are seconds. Raises ValueError for what cannot work."""

    servers: tuple[Server, ...] = ()  # literal addresses and ports; empty: the system's
    timeout: float = 2.0  # one question to one server; less where several must have their turn in total_timeout
    attempts: int = 2  # how often a silent server is asked
    total_timeout: float = 5.0  # one lookup: all servers, aliases and search domains together
    min_ttl: float = 0.0  # more than 0 keeps answers longer than their owner allows
    max_ttl: float = 3600.0
    negative_ttl_max: float = 30.0
    cache_size: int = 10_000  # names with an answer, and as many without
    max_inflight: int = 1000  # lookups under way; each has up to two sockets
    resolv_conf: Path = Path("/etc/resolv.conf")
    hosts: Path = Path("/etc/hosts")

    def __post_init__(self) -> None:
        for name in ("timeout", "total_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not a time to wait (use more than 0 seconds)")
        for name in ("attempts", "cache_size", "max_inflight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is too few (use 1 or more)")
        if not 0 <= self.min_ttl <= self.max_ttl:
            raise ValueError(f"min_ttl: {self.min_ttl} is not between 0 and max_ttl ({self.max_ttl})")
        if self.negative_ttl_max < 0:
            raise ValueError(f"negative_ttl_max: {self.negative_ttl_max} is negative (use 0 to keep no failures)")


def parse_servers(text: str) -> tuple[Server, ...]:
    """Name servers as they are written in options: `127.0.0.1:5353,[::1]:53,9.9.9.9`; empty text means none.

    A port may be left out. Raises ValueError that quotes the entry and says what is accepted.
    """
    if not text.strip():
        return ()
    return tuple(_parse_server(entry.strip()) for entry in text.split(","))


def _parse_server(entry: str) -> Server:
    if not entry:
        raise ValueError("an empty name server between commas (write addresses like 9.9.9.9,[::1]:5353)")
    host, port = _split(entry)
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"{entry!r} is not a name server (write a literal address like 9.9.9.9, 9.9.9.9:5353 or [::1]:53)"
        ) from None
    if entry.startswith("[") and not isinstance(address, IPv6Address):
        raise ValueError(f"{entry!r}: only IPv6 addresses stand in brackets (write {host}:{port or DNS_PORT})")
    if port is None:
        return str(address), DNS_PORT
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{entry!r}: {port!r} is not a port (use 1-65535)")
    return str(address), int(port)


def _split(entry: str) -> tuple[str, str | None]:
    """Host and port text; a bare IPv6 address has no port."""
    if entry.startswith("["):
        host, closed, rest = entry[1:].partition("]")
        if closed and rest.startswith(":"):
            return host, rest[1:]
        return (host, None) if closed and not rest else (entry, None)
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, None
