"""The command line: what may be asked, and what it is when nothing is said."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from .attempt.family import Family, family_of
from .targets import DENIED_NAME, DOH_NAME, GATEWAY_PORTS, PUBLIC, TCP_PORTS, UDP_PORTS, Targets

PROGRAM = "gateway-check"

_MOST_PORTS = 50
_SHORTEST, _LONGEST = 0.5, 60.0
USUAL_TIMEOUT = 3.0
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Options:
    targets: dict[Family, Targets]
    families: tuple[Family, ...]
    gateways: dict[Family, str]
    ports: tuple[int, ...]
    udp_ports: tuple[int, ...]
    gateway_ports: tuple[int, ...]
    allowed_name: str | None
    denied_name: str
    timeout: float
    json: bool
    quiet: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message} (see {PROGRAM} --help)\n")


def parse(arguments: Sequence[str]) -> Options:
    """Exits with status 2 and one line when it does not understand."""
    parser = _parser()
    given = parser.parse_args(arguments)
    gateways = {family_of(address): address for address in given.gateway}
    if len(gateways) != len(given.gateway):
        parser.error("argument --gateway: one address of each family is enough")
    return Options(
        targets=_targets(given.target, given.dns_server),
        families=(Family.V4,) if given.no_ipv6 else (Family.V4, Family.V6),
        gateways=gateways,
        ports=given.ports,
        udp_ports=given.udp_ports,
        gateway_ports=given.gateway_ports,
        allowed_name=given.allowed_name,
        denied_name=given.denied_name,
        timeout=given.timeout,
        json=given.output == "json",
        quiet=given.quiet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, allow_abbrev=False, description="Prove that nothing goes round the gateway.")
    add = parser.add_argument
    add("--target", metavar="ADDRESS", action="append", default=[], type=_outside, help="a host outside")
    add("--dns-server", metavar="ADDRESS", action="append", default=[], type=_outside, help="a resolver outside")
    add("--gateway", metavar="ADDRESS", action="append", default=[], type=_address, help="the gateway's address")
    add("--ports", metavar="LIST", type=_ports, default=tuple(TCP_PORTS), help="TCP ports to try")
    add("--udp-ports", metavar="LIST", type=_ports, default=tuple(UDP_PORTS), help="UDP ports to try")
    add("--gateway-ports", metavar="LIST", type=_ports, default=tuple(GATEWAY_PORTS), help="its own ports to try")
    add("--denied-name", metavar="NAME", type=_name, default=DENIED_NAME, help="a name that no rule allows")
    add("--allowed-name", metavar="NAME", type=_name, help="a name that a rule allows")
    add("--no-ipv6", action="store_true", help="leave IPv6 out")
    add("--timeout", metavar="SECONDS", type=_seconds, default=USUAL_TIMEOUT, help="how long to wait for answers")
    add("-o", "--output", choices=("table", "json"), default="table", help="the form of the report")
    add("-q", "--quiet", action="store_true", help="tell only what is open or broken")
    return parser


def _targets(hosts: Sequence[str], resolvers: Sequence[str]) -> dict[Family, Targets]:
    """Whoever names hosts wants no others to be tried, of whatever family."""
    chosen = {}
    for family in Family:
        public = PUBLIC[family]
        ours = tuple(dict.fromkeys(address for address in hosts if family_of(address) is family))
        named = tuple(dict.fromkeys(address for address in resolvers if family_of(address) is family))
        known = dict(public.dns_servers)
        if hosts:
            servers = named or (() if resolvers else ours)
            chosen[family] = Targets(ours, tuple((server, known.get(server, DOH_NAME)) for server in servers), ours)
        else:
            servers = named if resolvers else tuple(known)
            chosen[family] = Targets(
                public.hosts, tuple((server, known.get(server, DOH_NAME)) for server in servers), public.time_servers
            )
    return chosen


# argparse shows the text of these errors.


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None


def _outside(text: str) -> str:
    address = ipaddress.ip_address(_address(text))
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise argparse.ArgumentTypeError(f"{text} is not the address of a host behind the gateway")
    return str(address)


def _ports(text: str) -> tuple[int, ...]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not (part.isascii() and part.isdigit() and 1 <= int(part) <= 65535):
            raise argparse.ArgumentTypeError(f"{part!r} is not a port (use 1-65535, with commas between them)")
        if int(part) == 53:
            raise argparse.ArgumentTypeError("port 53 is tried as DNS, by checks of its own (leave it out)")
        found.append(int(part))
    if len(found) > _MOST_PORTS:
        raise argparse.ArgumentTypeError(f"{len(found)} ports are too many (use at most {_MOST_PORTS})")
    return tuple(dict.fromkeys(found))


def _name(text: str) -> str:
    name = text.rstrip(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name in its ASCII form")
    return name


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds from {_SHORTEST:g} to {_LONGEST:g}")
    return seconds
