"""What kind of place an address is, after the IANA special-purpose registries (RFC 6890 and its successors).

`ipaddress.is_global` is not enough: it calls NAT64, 6to4, SIIT and several cloud metadata addresses global. An IPv6
address that carries an IPv4 address is judged by what it carries, however it is wrapped.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from .hostname import Address

Network = IPv4Network | IPv6Network


class AddressClass(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    SHARED = "carrier_grade_nat"
    BENCHMARKING = "benchmarking"
    DOCUMENTATION = "documentation"
    RESERVED = "reserved"
    MULTICAST = "multicast"
    DENIED = "denied_by_rule"
    """A rule with `action: deny` names it; the caller says so."""
    OWN = "own"
    """An address of the gateway's own machine; nobody can tell from the number, the caller says so."""


REACHABLE_WITH_ALLOW_PRIVATE = frozenset(
    {
        AddressClass.PRIVATE,
        AddressClass.LOOPBACK,
        AddressClass.LINK_LOCAL,
        AddressClass.SHARED,
        AddressClass.BENCHMARKING,
        AddressClass.DOCUMENTATION,
        AddressClass.OWN,
    }
)
"""What `allowPrivate` opens. Cloud metadata needs a rule that names the address itself; the rest is never dialled."""

_STRICTNESS = {
    kind: 0 if kind is AddressClass.PUBLIC else 1 if kind in REACHABLE_WITH_ALLOW_PRIVATE else 2
    for kind in AddressClass
}

_TABLE: tuple[tuple[AddressClass, tuple[str, ...]], ...] = (
    # Metadata first: its addresses lie inside wider ranges of the table.
    (
        AddressClass.METADATA,
        (
            "169.254.169.254/32",  # AWS, GCP, Azure, OpenStack and most others
            "169.254.170.2/32",  # AWS ECS task credentials
            "169.254.170.23/32",  # AWS EKS pod identity
            "169.254.0.23/32",  # Tencent Cloud
            "168.63.129.16/32",  # Azure wire server
            "100.100.100.200/32",  # Alibaba Cloud
            "192.0.0.192/32",  # Oracle Cloud (classic)
            "fd00:ec2::254/128",  # AWS over IPv6
            "fd00:ec2::23/128",  # AWS EKS pod identity over IPv6
            "fd20:ce::254/128",  # GCP over IPv6
            "fd00:42::42/128",  # Scaleway over IPv6
        ),
    ),
    (AddressClass.LOOPBACK, ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")),
    (AddressClass.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (AddressClass.PRIVATE, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    (AddressClass.SHARED, ("100.64.0.0/10",)),
    (AddressClass.BENCHMARKING, ("198.18.0.0/15", "2001:2::/48")),
    (
        AddressClass.DOCUMENTATION,
        ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    ),
    (AddressClass.MULTICAST, ("224.0.0.0/4", "ff00::/8")),
    (
        AddressClass.RESERVED,
        (
            "192.0.0.0/24",  # IETF protocol assignments
            "192.31.196.0/24",  # AS112-v4
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # deprecated 6to4 relay anycast
            "192.175.48.0/24",  # direct delegation AS112
            "240.0.0.0/4",  # class E, and the limited broadcast address
            "100::/64",  # discard only
            "100:0:0:1::/64",  # dummy prefix
            # 2001::/23, IETF protocol assignments, all but Teredo (2001::/32), which is judged by what it carries
            "2001:1::/32",  # anycast of PCP, TURN and DNS-SD
            "2001:2::/31",  # benchmarking (above), AMT
            "2001:4::/30",  # AS112-v6
            "2001:8::/29",
            "2001:10::/28",  # deprecated ORCHID
            "2001:20::/27",  # ORCHIDv2, drone remote identification
            "2001:40::/26",
            "2001:80::/25",
            "2001:100::/24",
            "2620:4f:8000::/48",  # direct delegation AS112
            "5f00::/16",  # segment routing SIDs
        ),
    ),
)


def _ends(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


_SPECIAL: tuple[tuple[Network, AddressClass], ...] = tuple(
    (ip_network(text), kind) for kind, texts in _TABLE for text in texts
)
# The same as numbers, by IP version: first, last, class. Comparing those costs a twentieth of asking `ipaddress`.
_RANGES: dict[int, tuple[tuple[int, int, AddressClass], ...]] = {
    version: tuple((*_ends(network), kind) for network, kind in _SPECIAL if network.version == version)
    for version in (4, 6)
}

_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
# Prefixes after which the last 32 bits are an IPv4 address.
_IPV4_AT_THE_END = (
    IPv6Network("::ffff:0:0/96"),  # mapped, RFC 4291
    IPv6Network("::ffff:0:0:0/96"),  # SIIT, RFC 2765
    IPv6Network("::/96"),  # compatible, deprecated by RFC 4291
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: bits 64..95 of the address


def embedded_ipv4(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Every IPv4 address that `address` carries (Teredo carries two); empty where it carries none."""
    number = int(address)
    low = IPv4Address(number & 0xFFFFFFFF)
    if number > 1 and any(address in prefix for prefix in _IPV4_AT_THE_END):
        return (low,)
    if address in _SIX_TO_FOUR:
        return (IPv4Address((number >> 80) & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (IPv4Address((number >> 64) & 0xFFFFFFFF), IPv4Address(~number & 0xFFFFFFFF))
    if address in _LOCAL_NAT64:
        # RFC 6052 lets the operator choose /48, /56, /64 or /96, so each place an address could stand in is read.
        return (low, *(IPv4Address(_skip_u_octet(number, lowest_bit)) for lowest_bit in (40, 32, 24)))
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return (low,)
    return ()


def _skip_u_octet(number: int, lowest_bit: int) -> int:
    """The 32 bits ending at `lowest_bit`, without the reserved octet 64..71 (RFC 6052, 2.2)."""
    spread = (number >> lowest_bit) & 0xFFFFFFFFFF
    u_shift = 56 - lowest_bit
    high = spread >> (u_shift + 8)
    low = spread & ((1 << u_shift) - 1)
    return ((high << u_shift) | low) & 0xFFFFFFFF


@lru_cache(maxsize=8192)
def classify(address: Address) -> AddressClass:
    """The class of `address` by number alone (never `OWN`); of an address that carries others, the strictest."""
    found = _by_table(address)
    if isinstance(address, IPv6Address):
        for inner in map(_by_table, embedded_ipv4(address)):
            if _STRICTNESS[inner] > _STRICTNESS[found]:
                found = inner
    return found


def _by_table(address: Address) -> AddressClass:
    number = int(address)
    for first, last, kind in _RANGES[address.version]:
        if first <= number <= last:
            return kind
    return AddressClass.PUBLIC


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` holds `address` (networks of the other IP version hold nothing of it)."""
    return any(address.version == network.version and address in network for network in networks)


def network_class(network: Network) -> AddressClass | None:
    """The one class that all of `network` lies in, or None where it spans several (`0.0.0.0/0` does)."""
    lowest, highest = _ends(network)
    for first, last, kind in _RANGES[network.version]:
        if first <= lowest and highest <= last:
            return kind
    return None
