"""What an operator can set on the data path: every limit, with its safe default. `hooks/options.py` fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field

from egress_gateway.policy.addresses import Network
from egress_gateway.policy.name_table import NameLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    header_bytes: int = 65_536
    """Start line and header section of one message, and likewise its trailer section."""
    header_fields: int = 256
    """Fields in the header section of one message."""
    header_timeout: float = 10.0
    """From the first byte of a request to the end of its header section."""
    hello_bytes: int = 65_536
    """A ClientHello with its record headers."""
    hello_timeout: float = 10.0
    """From an accepted tunnel to the end of the ClientHello, or to the first bytes of whatever it is."""
    idle_timeout: float = 300.0
    """A connection on which nothing moves in either direction."""
    connect_timeout: float = 10.0
    """TCP to a destination, over all its addresses; and again for TLS."""
    lookups_per_client: int = 100
    """Names being resolved for one client address."""
    names_per_dial: int = 16
    """Names of `tcp` rules that are resolved to see whether one has the address that a client dialled."""
    connections_per_client: int = 1000
    """Open connections from one client address."""
    connections: int = 0
    """Open connections of all clients together; 0: as many as the system allows."""


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How TLS to destinations is verified."""

    ca_file: str | None = None
    """PEM file of trusted certificates; None: the system's store."""
    ca_directory: str | None = None
    min_version: str = "TLS1_2"
    max_version: str = "UNBOUNDED"
    ciphers: str | None = None
    client_certificates: str | None = None
    """A PEM file with certificate and key, or a folder of `<host>.pem` files."""


@dataclass(frozen=True, slots=True)
class NameServerSettings:
    """The gateway as its clients' name server."""

    denied: str = "refused"
    """What is said of a name that no rule allows: `refused` or `nxdomain`."""
    max_ttl: int = 300
    """Seconds for which an answer may be kept at most."""
    max_label: int = 48
    """Characters of a label that a wildcard's star stands for."""
    queries_per_second: int = 100
    """From one client address; twice as many at once."""
    connections_per_client: int = 100
    """Open TCP connections from one client address."""
    idle_timeout: float = 10.0
    """Seconds for a whole question on a TCP connection, and for the client to take an answer."""
    waiting: int = 4000
    """Questions of all clients together that wait for an answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    limits: Limits = field(default_factory=Limits)
    public_ranges: tuple[Network, ...] = ()
    """Networks treated as public whatever their address class."""
    tls: UpstreamTls = field(default_factory=UpstreamTls)
    ech: str = "allow"
    """`allow` judges a ClientHello with encrypted_client_hello by its outer name; `deny` refuses it."""
    refusal_detail: str = "full"
    """`full` tells a refused client the nearest rule and the smallest one that would allow it; `reason` only why."""
    names: NameLimits = field(default_factory=NameLimits)
    """How much is remembered of which addresses names have."""
    name_server: NameServerSettings = field(default_factory=NameServerSettings)
    local_address: str | None = None
    """The address to connect from; None: the system chooses."""
