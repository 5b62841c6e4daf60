"""Which checks there are: the rows of the report, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .attempt.family import Family, shown
from .options import Options
from .place import Place
from .probes import allowed_name, icmp, led, raw, tcp, udp
from .probes.setting import Probe
from .spoken import dns, http, tls
from .targets import DNS_OVER_TLS, GATEWAY_PORTS, TCP_PORTS, UDP_PORTS, Targets


@dataclass(frozen=True)
class Check:
    name: str
    family: Family
    target: str
    probe: Probe


def plan(options: Options, family: Family, place: Place) -> Iterator[Check]:
    """The checks of one family, those first that a gateway answers by ICMP: it answers only so many at once."""
    targets = options.targets[family]
    # Each a single one first, of the kind that clients must be told at once to leave.
    yield from _udp(options.udp_ports[:1], family, targets)
    for host in targets.hosts:
        yield Check("ICMP echo", family, host, icmp.echo(host))
    yield from _udp(options.udp_ports[1:], family, targets)
    yield from _web(family, targets)
    yield from _dns(family, targets)
    yield from _allowed(options, family, targets)
    for host in targets.hosts:
        for port in options.ports:
            yield Check(_named("TCP", port, TCP_PORTS), family, shown(host, port), tcp.outside(host, port))
    for host in targets.hosts:
        for number, name in raw.PROTOCOLS.items():
            yield Check(f"IP protocol {number} ({name})", family, host, raw.outside(host, number))
        if family is Family.V6:
            yield Check("IPv6 headers cut short", family, host, raw.cut_short(host))
    for port in options.gateway_ports if place.address else ():
        name = _named("gateway's own TCP", port, GATEWAY_PORTS)
        yield Check(name, family, shown(place.address, port), tcp.gateway_itself(place.address, port))


def _udp(ports: Iterable[int], family: Family, targets: Targets) -> Iterator[Check]:
    for port in ports:
        for host in targets.time_servers if port == 123 else targets.hosts:
            yield Check(_named("UDP", port, UDP_PORTS), family, shown(host, port), udp.outside(host, port))


def _web(family: Family, targets: Targets) -> Iterator[Check]:
    for host in targets.hosts:
        yield Check("HTTP", family, shown(host, http.PORT), led.http_request(host))
        yield Check("HTTPS", family, shown(host, tls.PORT), led.https(host))


def _dns(family: Family, targets: Targets) -> Iterator[Check]:
    for server, name in targets.dns_servers:
        where = shown(server, dns.PORT)
        yield Check("DNS over UDP", family, where, led.dns_over_udp(server))
        yield Check("DNS over TCP", family, where, led.dns_over_tcp(server))
        yield Check("DNS over TLS", family, shown(server, DNS_OVER_TLS), tcp.outside(server, DNS_OVER_TLS))
        yield Check(f"DNS over HTTPS ({name})", family, shown(server, tls.PORT), led.https(server, name))


def _allowed(options: Options, family: Family, targets: Targets) -> Iterator[Check]:
    kind = dns.A if family is Family.V4 else dns.AAAA
    if options.allowed_name is None:
        return
    for server, _ in targets.dns_servers[:1]:
        probe = allowed_name.has_addresses(server, options.allowed_name, kind)
        yield Check("allowed name", family, shown(server, dns.PORT), probe)


def _named(protocol: str, port: int, names: dict[int, str]) -> str:
    name = names.get(port)
    return f"{protocol} {port} ({name})" if name else f"{protocol} {port}"
