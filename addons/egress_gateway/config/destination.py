"""What a `service` means: a name, a wildcard, an address or a network.

Names become canonical A-labels here (`policy.hostname`), so nothing behind this file sees another spelling. A number
that resolvers would read as an address is refused unless it is written as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from egress_gateway.policy.hostname import Hostname, MalformedHost, canonical_name, parse_host
from egress_gateway.policy.rule import AddressRange, Destination, ExactName, Wildcard

from .problem import shown

_PREFIX = re.compile(r"[0-9]{1,3}\Z", re.ASCII)
_MAPPED = IPv6Network("::ffff:0:0/96")


class BadService(ValueError):
    """Not a destination; the message says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Service:
    destination: Destination
    is_cidr: bool = False
    advice: str = ""
    """A warning about the way it is written."""


def parse_service(text: str, *, istio: bool) -> Service:
    """The destination `text` of a rule; `istio` allows what v1alpha2 allows and no more. Raises `BadService`."""
    if not text:
        raise BadService("domain must not be empty string (write a domain, a wildcard or an address)")
    if text.startswith("*"):
        return Service(_wildcard(text, istio=istio))
    if "://" in text:
        raise BadService(f"{shown(text)} is a URL (write only its host, and its port in spec.ports)")
    if text.count("/") == 1:
        return _network(text, istio=istio)
    if "*" in text:
        raise BadService(f"{shown(text)} has a * that is not its first character (write *.example.com)")
    if "/" in text:
        raise BadService(f"{shown(text)} has a path (write only the host)")
    return Service(_host(text, istio=istio))


def _host(text: str, *, istio: bool) -> Destination:
    name, colon, port = text.rpartition(":")
    if colon and ":" not in name and port.isdigit():
        raise BadService(f"{shown(text)} has a port (write {shown(name)}, and the port in spec.ports)")
    try:
        host = parse_host(text)
    except MalformedHost as error:
        raise BadService(f"{shown(text)} is not a domain or address: {error}{_advice(text)}") from None
    if isinstance(host, IPv6Address):
        if istio:
            raise BadService(f"{shown(text)} is an IPv6 address (they need apiVersion: egress.mitmproxy/v1)")
        if text.startswith("["):
            raise BadService(f"{shown(text)} is in brackets (write {host})")
        return AddressRange.of(host)
    if isinstance(host, IPv4Address):
        if str(host) != text:
            raise BadService(f"{shown(text)} is read as the address {host} (write {host})")
        return AddressRange.of(host)
    return ExactName(host)


def _advice(text: str) -> str:
    if any(character.isspace() for character in text):
        return " (leave the white space out)"
    return " (write a domain such as www.example.com)"


def _wildcard(text: str, *, istio: bool) -> Wildcard:
    rest = text[1:]
    if "*" in rest:
        raise BadService(f"{shown(text)} has more than one * (it may only be the first character)")
    if "/" in rest:
        raise BadService(f"{shown(text)} is neither a wildcard nor a CIDR block (write *.example.com)")
    if ":" in rest:
        raise BadService(f"{shown(text)} has a port (write the port in spec.ports)")
    if rest == "":
        return Wildcard("")
    if not istio and not rest.startswith("."):
        raise BadService(f"{shown(text)} cuts a label in two (write *.{shown(rest.lstrip('-'))})")
    dot = "." if rest.startswith(".") else ""
    try:
        name = canonical_name(rest.removeprefix("."))
    except MalformedHost as error:
        raise BadService(f"{shown(text)} is not a wildcard: {error} (write *.example.com)") from None
    if not dot and not rest.partition(".")[0].isascii():
        raise BadService(f"{shown(text)} cuts an internationalised label in two (write *.{shown(rest)})")
    return Wildcard(Hostname(dot + name))


def _network(text: str, *, istio: bool) -> Service:
    address, _, prefix = text.partition("/")
    try:
        if not _PREFIX.match(prefix):
            raise ValueError  # `ip_network` would take a netmask as well
        network = ip_network(text, strict=False)
    except ValueError:
        raise BadService(f"{shown(text)} is not a valid CIDR block (write e.g. 192.0.2.0/24)") from None
    if istio and network.version == 6:
        raise BadService(f"{shown(text)} is an IPv6 CIDR block (they need apiVersion: egress.mitmproxy/v1)")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = ip_network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise BadService(f"{shown(text)} is made of IPv4 addresses (write {inner})")
    if ip_address(address) != network.network_address:
        return Service(AddressRange(network), True, f"{shown(text)} means {network} (write {network})")
    return Service(AddressRange(network), True)
