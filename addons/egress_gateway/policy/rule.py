"""An egress rule as the policy sees it: parsed, canonical and frozen. What a file may say is `config`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

from .addresses import Network
from .hostname import Address, Hostname


class Protocol(StrEnum):
    """What an application speaks to a port (the values are Istio's, in lower case)."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    HTTPS = "https"
    TCP = "tcp"
    MONGO = "mongo"


class Family(StrEnum):
    """Protocols that the gateway treats alike."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"


FAMILY = {
    Protocol.HTTP: Family.HTTP,
    Protocol.HTTP2: Family.HTTP,
    Protocol.GRPC: Family.HTTP,
    Protocol.HTTPS: Family.HTTPS,
    Protocol.TCP: Family.TCP,
    Protocol.MONGO: Family.TCP,
}


class RuleAction(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class TlsMode(StrEnum):
    """Which of the two forms of `https` a port admits; a port without a mode admits both."""

    ORIGINATE = "originate"
    PASSTHROUGH = "passthrough"


class AddressCheck(StrEnum):
    """What happens in transparent modes where the address that the client dialled is not one of the name's."""

    ENFORCE = "enforce"
    """Refused."""
    REDIAL = "redial"
    """The name's own address is dialled instead."""
    AUDIT = "audit"
    """The same, and it is counted and logged as a contradiction."""


@dataclass(frozen=True, slots=True)
class Port:
    number: int
    protocol: Protocol
    target_port: int | None = None
    """The port dialled instead of `number`."""
    tls_mode: TlsMode | None = None

    @property
    def dialled(self) -> int:
        return self.target_port or self.number

    @property
    def family(self) -> Family:
        family = FAMILY[self.protocol]
        # http with TLS origination is what https means for an application that speaks plain HTTP.
        return Family.HTTPS if family is Family.HTTP and self.tls_mode is TlsMode.ORIGINATE else family

    @property
    def treatment_key(self) -> tuple[Family, int, TlsMode | None]:
        """Two ports with equal keys want the same done with a connection."""
        return self.family, self.dialled, self.tls_mode


@dataclass(frozen=True, slots=True)
class ExactName:
    """Matches one name."""

    name: Hostname

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Matches every name that ends in `suffix` and is longer than it; `*` has the empty suffix. Never an address."""

    suffix: str

    def __str__(self) -> str:
        return f"*{self.suffix}"


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Matches the addresses of a network; one address is a network of full prefix length."""

    network: Network

    @classmethod
    def of(cls, address: Address) -> AddressRange:
        return cls(ip_network(address))

    def __str__(self) -> str:
        single = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address if single else self.network)


Destination = ExactName | Wildcard | AddressRange


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule stands, for messages: the line and column (from 1) at which its document begins."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class EgressRule:
    namespace: str
    name: str
    destinations: tuple[Destination, ...]
    ports: tuple[Port, ...]
    action: RuleAction = RuleAction.ALLOW
    allow_private: bool = False
    check: AddressCheck = AddressCheck.ENFORCE
    api_version: str = "egress.mitmproxy/v1"
    source: Source | None = None

    @property
    def key(self) -> str:
        """`namespace/name`, which is unique in a rule set."""
        return f"{self.namespace}/{self.name}"
