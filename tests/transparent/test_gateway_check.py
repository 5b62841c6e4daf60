"""`gateway-check` on the real thing: a gateway, and the packet filter that `gateway-up` has loaded.

It is green there; and each rule of the table, taken out, turns exactly those rows red that it stands behind. The evil
host answers to everything, so a way that is open is seen to be open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from egress_gateway.containment.outcome import Status
from egress_gateway.containment.run import Report
from egress_gateway.network.layout import Layout
from egress_gateway.network.ruleset import render
from support.containment_checks import CUT_SHORT, SILENT, run_checks
from support.dns_server import DnsServer
from support.everything import Everything
from support.gateway_machine import RULES, GatewayMachine
from support.gateway_stand_in import delete_rules
from support.networks import TwoNetworks
from support.transparent_gateway import MODES, TransparentGateway

ALLOWED = "web.example"  # by RULES, which also name port 8443

TCP = {"TCP 22 (SSH)", "TCP 25 (SMTP)", "TCP 587 (submission)", "TCP 3128 (proxy)", "TCP 8080 (HTTP)", "TCP 50022"}
TCP |= {"DNS over TLS"}
QUIC, ICMP, UNREADABLE = {"UDP 443 (QUIC)"}, {"ICMP echo"}, {CUT_SHORT[0]}
UDP = {"UDP 123 (NTP)", "UDP 853 (DNS over QUIC)", "UDP 3478 (STUN)", "UDP 5353 (DNS)", "UDP 51820 (WireGuard)"}
UDP |= {"UDP 33434"}
TUNNELS = {"IP protocol 41 (IPv6 in IP)", "IP protocol 47 (GRE)", "IP protocol 50 (ESP)", "IP protocol 132 (SCTP)"}
WEB = {"HTTP", "HTTPS", "DNS over HTTPS (dns.google)"}
DNS_UDP, DNS_TCP = {"DNS over UDP", "allowed name"}, {"DNS over TCP"}
FOUR, SIX = {"IPv4"}, {"IPv6"}
NEIGHBOURS = "passes: neighbour discovery"

# The comment of the rules that are taken out → what the rows then say, which, and of which families.
BEHIND_A_RULE: dict[str, tuple[Status, set[str], set[str]]] = {
    "refused: TCP": (Status.OPEN, TCP, FOUR | SIX),
    "refused: QUIC": (Status.OPEN, QUIC, FOUR | SIX),
    "refused: UDP": (Status.OPEN, UDP, FOUR | SIX),
    "refused: ICMP": (Status.OPEN, ICMP, FOUR | SIX),
    "refused: other protocols": (Status.OPEN, TUNNELS, FOUR | SIX),
    "dropped: what the kernel cannot read or track": (Status.OPEN, UNREADABLE, SIX),
    "to the gateway: DNS over UDP": (Status.BROKEN, DNS_UDP, FOUR | SIX),
    "to the gateway: DNS over TCP": (Status.BROKEN, DNS_TCP, FOUR | SIX),
    "to the gateway: ports of the rules": (Status.BROKEN, WEB, FOUR | SIX),
    "passes: redirected to the proxy": (Status.BROKEN, WEB, FOUR | SIX),
    "passes: redirected DNS over UDP": (Status.BROKEN, DNS_UDP, FOUR | SIX),
    "passes: redirected DNS over TCP": (Status.BROKEN, DNS_TCP, FOUR | SIX),
    # IPv6 has no way to its router any more.
    NEIGHBOURS: (Status.BROKEN, WEB | DNS_UDP | DNS_TCP, SIX),
}
NOT_FOR_CLIENTS = {
    "passes: answers to the gateway itself": "it connects to clients of its own accord only",
    "passes: errors of known connections": "packets then get lost that nobody tries here",
    "passes: DHCP": "clients of this lab have their addresses",
    "passes: DHCPv6": "as above",
    "refused: strangers over TCP": "they are outside",
    "refused: strangers over UDP": "as above",
    "dropped: a source that is not inside": "what it lets out is seen outside only",
    "dropped: complaints about packets, to others than clients": "as above",
}


@pytest.fixture(scope="module")
def gateway(
    networks: TwoNetworks,
    module_internet_dns: DnsServer,
    transparent_gateway: Callable[..., TransparentGateway],
) -> Iterator[TransparentGateway]:
    module_internet_dns.set(ALLOWED, [networks.web.ipv4, networks.web.ipv6])
    for host in (networks.gateway, networks.evil):
        # Or only some of many refusals at once would be told.
        host.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    # Or after three seconds a client's own kernel would say that there is no such neighbour.
    networks.client.run("sysctl", "-qw", "net.ipv6.neigh.eth0.mcast_solicit=100")
    with Everything(networks.evil):
        yield transparent_gateway(RULES, modes=MODES)


@pytest.fixture
def machine(networks: TwoNetworks, gateway: TransparentGateway) -> Iterator[GatewayMachine]:
    """The router, set up by gateway-up for the gateway that runs there."""
    with GatewayMachine(networks.gateway) as made:
        ports = ("--proxy-port", str(gateway.port), "--dns-port", str(gateway.dns_port))
        made.install("--inside", "inside", "--outside", "outside", *ports)
        yield made


@pytest.fixture
def check(networks: TwoNetworks) -> Callable[..., Report]:
    def run_it(*targets: str, options: Sequence[str] = (), **more: Any) -> Report:
        named = [part for target in targets for part in ("--target", target)]
        with networks.client.entered():
            return run_checks("--allowed-name", ALLOWED, *named, *options, **more)

    return run_it


@pytest.fixture(scope="module")
def far(networks: TwoNetworks) -> str:
    """An address behind the evil host, which for this one is a router. Nobody answers there."""
    address = "2001:db8:ffff::9"
    lines = [
        "link add name nowhere type veth peer name end",
        "link set dev nowhere up",
        "link set dev end up",
        f"route add {address} dev nowhere",
        f"neigh add {address} lladdr 02:00:00:00:00:01 dev nowhere",
    ]
    networks.evil.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    networks.evil.run("ip", "-batch", "-", input="\n".join(lines) + "\n")
    return address


def rows(report: Report, *statuses: Status) -> set[tuple[str, str]]:
    return {(row.check, row.family) for row in report.outcomes if row.verdict.status in statuses}


def how(*reports: Report) -> str:
    return "\n".join(f"{row.check} {row.family} {row.verdict}" for report in reports for row in report.outcomes)


def test_it_is_green_on_the_set_up(
    machine: GatewayMachine, networks: TwoNetworks, check: Callable[..., Report]
) -> None:
    report = check(networks.evil.ipv4, networks.evil.ipv6)
    assert report.contained, how(report)
    assert rows(report, Status.UNTESTED) == set()
    assert rows(report, Status.WORKS) == {("allowed name", "IPv4"), ("allowed name", "IPv6")}
    said = {(row.check, row.verdict.how) for row in report.outcomes if row.family == "IPv4"}
    assert ("HTTP", "led to the gateway: HTTP 403 no_rule") in said, how(report)
    assert ("HTTPS", "led to the gateway: TLS alert access_denied") in said, how(report)
    assert ("UDP 443 (QUIC)", "port unreachable, said 10.66.0.1") in said, how(report)
    assert ("DNS over UDP", "led to the gateway: REFUSED (Blocked)") in said, how(report)
    # A rule names this port, so the gateway takes it.
    assert ("TCP 8443 (HTTPS)", "led to the gateway: HTTP 403 no_rule") in said, how(report)


@pytest.mark.parametrize("comment", BEHIND_A_RULE)
def test_without_a_rule_exactly_the_rows_behind_it_are_red(
    comment: str, machine: GatewayMachine, networks: TwoNetworks, far: str, check: Callable[..., Report]
) -> None:
    status, checks, families = BEHIND_A_RULE[comment]
    delete_rules(networks.gateway, comment)
    # What clients know of their neighbours would outlast the rule; and who cannot read a packet does not answer it.
    networks.client.run("ip", "-6", "neigh", "flush", "dev", "eth0")
    four, six = networks.evil.ipv4, networks.evil.ipv6
    if comment == NEIGHBOURS:  # over IPv6 there is no answer to anything
        reports = [check(four), check(six, options=("--timeout", "0.6"))]
    elif checks == UNREADABLE:
        reports = [check(four, far, silent=SILENT - {CUT_SHORT}, silent_at_first={CUT_SHORT})]
    else:
        reports = [check(four, six, silent={CUT_SHORT} if checks == TUNNELS else SILENT)]
    expected = {(name, family) for name in checks for family in families}
    for statuses in ((status,), (Status.OPEN, Status.BROKEN)):
        assert set().union(*(rows(report, *statuses) for report in reports)) == expected, how(*reports)


def test_every_rule_of_the_table_is_accounted_for() -> None:
    table = render(Layout(("inside",), 8080, 5353), [80, 443])
    assert set(re.findall(r'comment "([^"]+)"', table)) == BEHIND_A_RULE.keys() | NOT_FOR_CLIENTS.keys()
