"""What the packet filter does to packets, in a network whose router would forward everything.

What a client sees is one half; the other is what the evil host's interface saw, which is all the rest of the world.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from egress_gateway.network.ruleset import (
    DROPPED,
    REFUSED_ICMP,
    REFUSED_OTHER,
    REFUSED_QUIC,
    REFUSED_TCP,
    REFUSED_UDP,
)
from support.attempts import (
    Attempt,
    a_socket,
    accepting,
    answering,
    arrived,
    dialled,
    exchange,
    ping,
    protocol,
    tcp,
    udp,
)
from support.gateway_machine import GatewayMachine
from support.networks import Host, TwoNetworks
from support.waiting import eventually
from support.wire import Packet, Wire

pytestmark = [pytest.mark.private_network, pytest.mark.root]

FAMILIES = {"IPv4": "ipv4", "IPv6": "ipv6"}
_GRE = 47


@pytest.fixture
def evil_wire(networks: TwoNetworks) -> Iterator[Wire]:
    with networks.evil.wire() as recorder:
        yield recorder


@pytest.fixture(scope="module", autouse=True)
def settled(networks: TwoNetworks) -> None:
    """Clients may ping without privilege, and the gateway tells them of every refusal.

    Unless told otherwise the kernel sends one machine six ICMP errors at once, and then one a second.
    """
    networks.client.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    networks.gateway.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    networks.gateway.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")


@pytest.fixture
def filtered(machine: GatewayMachine) -> GatewayMachine:
    machine.install("--inside", "inside")
    return machine


# What is tried → what it is told, and the rule that does it. EHOSTUNREACH and EACCES are "administratively prohibited".
ATTEMPTS: dict[str, tuple[Attempt, set[str], str]] = {
    "TCP to a port of no rule": (tcp(2222), {"refused"}, REFUSED_TCP),
    "DNS over TLS": (tcp(853), {"refused"}, REFUSED_TCP),
    "QUIC": (udp(443), {"refused"}, REFUSED_QUIC),
    "UDP": (udp(123), {"refused"}, REFUSED_UDP),
    "ping": (ping, {"EHOSTUNREACH", "EACCES"}, REFUSED_ICMP),
    "GRE": (protocol(_GRE), {"EHOSTUNREACH", "EACCES"}, REFUSED_OTHER),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_without_it_everything_arrives(family: str, networks: TwoNetworks, evil_wire: Wire) -> None:
    """Or the tests below would prove nothing."""
    address = getattr(networks.evil, FAMILIES[family])
    for attempt, _, _ in ATTEMPTS.values():
        attempt(networks.client, address)
    assert from_client(evil_wire, networks) == {"tcp 2222", "tcp 853", "udp 443", "udp 123", "ping", "GRE"}


@pytest.mark.parametrize("forwarding", [1, 0], ids=["a router", "no router"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_is_refused_at_once_and_nothing_leaves(
    family: str, forwarding: int, networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    address = getattr(networks.evil, FAMILIES[family])
    with forwarding_set(networks.gateway, forwarding), networks.client.wire() as wire:
        told = {name: attempt(networks.client, address) for name, (attempt, _, _) in ATTEMPTS.items()}
    for name, (_, expected, _) in ATTEMPTS.items():
        assert told[name] in expected, told
    assert len(wire.packets_to(address)) == len(ATTEMPTS), "who is not told at once sends again"
    assert from_client(evil_wire, networks) == set()


@pytest.mark.parametrize("comment", [REFUSED_TCP, REFUSED_QUIC, REFUSED_UDP, REFUSED_ICMP, REFUSED_OTHER])
def test_a_rule_that_is_gone_opens_what_it_says_and_nothing_else(
    comment: str, networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    remove_rule(filtered, comment)
    for address in (networks.evil.ipv4, networks.evil.ipv6):
        evil_wire.clear()
        for attempt, _, _ in ATTEMPTS.values():
            attempt(networks.client, address)
        opened = {
            REFUSED_TCP: {"tcp 2222", "tcp 853"},
            REFUSED_QUIC: {"udp 443"},
            REFUSED_UDP: {"udp 123"},
            REFUSED_ICMP: {"ping"},
            REFUSED_OTHER: {"GRE"},
        }
        assert from_client(evil_wire, networks) == opened[comment]


@pytest.mark.parametrize("family", FAMILIES)
def test_headers_that_cannot_be_read_are_dropped(family: str, networks: TwoNetworks, filtered: GatewayMachine) -> None:
    """A router does not look so far, so that a header that is cut short would be a way out."""
    # Counted where it would be forwarded; the recorder of packets cannot read it either.
    chain = 'chain forward { type filter hook forward priority 0; iifname "inside" counter comment "forwarded"; }'
    filtered.nft("-f", "-", text=f"table inet seen {{ {chain}; }}")
    evil = getattr(networks.evil, FAMILIES[family])
    number = {"IPv4": socket.IPPROTO_UDP, "IPv6": socket.IPPROTO_DSTOPTS}[family]

    def send() -> None:
        with a_socket(networks.client, evil, socket.SOCK_RAW, number) as sock:
            sock.sendto(b"\x3b", (evil, 0))

    def forwarded() -> int:
        return count(filtered, "forward", "forwarded", table="seen")

    send()
    assert tcp(2222)(networks.client, evil) == "refused"  # what was sent before is over as well
    assert forwarded() == 0
    remove_rule(filtered, DROPPED)
    send()
    eventually(forwarded, "the packet to be forwarded")
    assert forwarded() == 1


# A packet with somebody else's address as its source: what is said to that address leaves, and quotes the packet.
FORGED: dict[str, tuple[int, int, bytes]] = {
    "TCP to a port of no rule": (socket.IPPROTO_TCP, 2222, b""),
    "TCP to a redirected port": (socket.IPPROTO_TCP, 80, b""),
    "UDP": (socket.IPPROTO_UDP, 123, b""),
    "QUIC": (socket.IPPROTO_UDP, 443, b""),
    "DNS": (socket.IPPROTO_UDP, 53, b""),
    "another protocol": (_GRE, 0, b""),
    # Option 158 is one whose recipient has to complain.
    "an option that nobody knows": (socket.IPPROTO_UDP, 123, bytes([17, 0, 158, 4, 0, 0, 0, 0])),
}


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_said_to_an_address_that_is_not_inside(
    family: str, forged: str, networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    evil, target = (getattr(host, FAMILIES[family]) for host in (networks.evil, networks.web))
    number, port, options = FORGED[forged]
    with answering(networks.gateway, 5353), accepting(networks.gateway, 8080):
        send_as(networks.client, evil, target, number, port, options)
        time.sleep(0.05)
    assert not [packet for packet in evil_wire.packets_to(evil) if not is_neighbour_discovery(packet)]


def test_neighbour_discovery_does_not_go_beyond_the_link(
    networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    """It must pass for the network to live, and could carry something."""
    with networks.client.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        solicitation = bytes([135, 0, 0, 0, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, networks.evil.ipv6)
        sock.sendto(solicitation + b"something", (networks.evil.ipv6, 0))
    time.sleep(0.05)
    assert not [packet for packet in evil_wire.packets if packet.src == networks.client.ipv6]
    # And the link lives: who the gateway is, is asked for anew.
    networks.client.run("ip", "neighbour", "flush", "dev", "eth0")
    networks.gateway.run("ip", "neighbour", "flush", "dev", "inside")
    assert tcp(2222)(networks.client, networks.evil.ipv6) == "refused"


# What is sent to the gateway.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", [80, 443, 8443])
def test_ports_of_the_rules_come_to_the_proxy_with_the_address_that_was_dialled(
    port: int, family: str, networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    address = getattr(networks.evil, FAMILIES[family])
    with accepting(networks.gateway, 8080) as accepted, networks.client.connect(address, port):
        (connection,) = eventually(lambda: accepted, "a connection at the proxy port")
        assert dialled(connection) == (address, port)
    assert from_client(evil_wire, networks) == set()


@pytest.mark.parametrize("where", ["the gateway", "another server"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dns_comes_to_the_dns_port_whomever_it_was_meant_for(
    family: str, where: str, networks: TwoNetworks, filtered: GatewayMachine, evil_wire: Wire
) -> None:
    host = networks.gateway if where == "the gateway" else networks.evil
    address = getattr(host, FAMILIES[family])
    with answering(networks.gateway, 5353), accepting(networks.gateway, 5353) as accepted:
        assert udp(53)(networks.client, address) == "answered"
        networks.client.connect(address, 53).close()
        eventually(lambda: accepted, "a connection at the DNS port")
    assert from_client(evil_wire, networks) == set()


def test_a_dns_port_of_53_itself_is_reached(networks: TwoNetworks, machine: GatewayMachine) -> None:
    machine.install("--inside", "inside", "--dns-port", "53")
    with answering(networks.gateway, 53):
        for address in (networks.gateway.ipv4, networks.gateway.ipv6, networks.evil.ipv4, networks.evil.ipv6):
            assert udp(53)(networks.client, address) == "answered"


def test_an_error_about_a_redirected_connection_comes_through(networks: TwoNetworks, filtered: GatewayMachine) -> None:
    """Or connections over a path with a smaller MTU would hang."""
    with accepting(networks.gateway, 8080) as accepted, networks.client.connect(networks.evil.ipv4, 80) as sock:
        eventually(lambda: accepted, "a connection at the proxy port")
        source, port = sock.getsockname()
        with networks.client.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with raw:
            # "Fragmentation needed, MTU 1300", about a packet of the server's.
            ends = socket.inet_aton(networks.evil.ipv4) + socket.inet_aton(source)
            about = (
                struct.pack("!BBHHHBBH", 0x45, 0, 1500, 0, 0x4000, 64, 6, 0) + ends + struct.pack("!HHI", 80, port, 0)
            )
            message = struct.pack("!BBHHH", 3, 4, 0, 0, 1300)
            checked = message[:2] + struct.pack("!H", checksum(message + about)) + message[4:] + about
            raw.sendto(checked, (networks.evil.ipv4, 0))
        eventually(
            lambda: count(filtered, "from_inside", "passes: errors of known connections") == 1, "the error to pass"
        )


# The gateway's own addresses.


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_reach_nothing_of_the_gateway_but_what_they_are_sent_to(
    family: str, networks: TwoNetworks, filtered: GatewayMachine
) -> None:
    inside = getattr(networks.gateway, FAMILIES[family])
    outside = {"IPv4": "203.0.113.1", "IPv6": "2001:db8::1"}[family]
    with contextlib.ExitStack() as stack:
        for port in (22, 8080, 5353, 9464):
            stack.enter_context(accepting(networks.gateway, port))
        for address in (inside, outside):
            assert {port: tcp(port)(networks.client, address) for port in (22, 8080, 5353, 9464)} == dict.fromkeys(
                (22, 8080, 5353, 9464), "refused"
            )
            assert udp(5353)(networks.client, address) == "refused"
            assert ping(networks.client, address) in {"EHOSTUNREACH", "EACCES"}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_reached_at_the_gateway_only(
    family: str, networks: TwoNetworks, machine: GatewayMachine, evil_wire: Wire
) -> None:
    machine.write_rule("web.yaml", SSH_RULE)
    machine.install("--inside", "inside", "--keep", "tcp/22", "--keep", "icmp")
    here, there = (getattr(host, FAMILIES[family]) for host in (networks.gateway, networks.evil))
    with accepting(networks.gateway, 22) as ssh, accepting(networks.gateway, 8080) as proxy:
        assert tcp(22)(networks.client, here) == "open"
        eventually(lambda: ssh, "the kept port to be reached")
        assert not proxy
        assert tcp(22)(networks.client, there) == "open"
        eventually(lambda: proxy, "the port of a rule to be redirected")
        assert ping(networks.client, here) == "answered"
        assert ping(networks.client, there) in {"EHOSTUNREACH", "EACCES"}
    assert from_client(evil_wire, networks) == set()


SSH_RULE = """
kind: EgressRule
apiVersion: egress.mitmproxy/v1
metadata: {name: ssh}
spec: {destination: {services: [203.0.113.0/24]}, ports: [{port: 22, protocol: tcp}]}
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_outside_uses_the_proxy_or_the_resolver(
    family: str, networks: TwoNetworks, filtered: GatewayMachine
) -> None:
    addresses = (getattr(networks.gateway, FAMILIES[family]), {"IPv4": "203.0.113.1", "IPv6": "2001:db8::1"}[family])
    with contextlib.ExitStack() as stack:
        for port in (8080, 5353, 22):
            stack.enter_context(accepting(networks.gateway, port))
        stack.enter_context(answering(networks.gateway, 5353))
        for address in addresses:
            told = {port: tcp(port)(networks.evil, address) for port in (8080, 5353, 22)}
            assert told == {8080: "refused", 5353: "refused", 22: "open"}
            assert udp(5353)(networks.evil, address) == "refused"
    # This host itself may, for whoever runs it wants to see that it works.
    with accepting(networks.gateway, 8080):
        assert tcp(8080)(networks.gateway, "127.0.0.1") == "open"


def test_the_gateways_own_connections_are_answered_from_both_sides(
    networks: TwoNetworks, filtered: GatewayMachine
) -> None:
    for server in (networks.evil, networks.client):
        with accepting(server, 7777), answering(server, 7777):
            for address in (server.ipv4, server.ipv6):
                assert tcp(7777)(networks.gateway, address) == "open"
                assert udp(7777)(networks.gateway, address) == "answered"


def test_who_is_let_in_from_outside_is_not_answered(networks: TwoNetworks, filtered: GatewayMachine) -> None:
    """A connection to a client would be a way out for what the client has to say."""
    with accepting(networks.client, 7777):
        assert tcp(7777, patience=0.3)(networks.evil, networks.client.ipv4) != "open"


# Connections that were there before.


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked before", "not tracked before"])
def test_direct_connections_from_before_end(
    tracked: bool, networks: TwoNetworks, machine: GatewayMachine, evil_wire: Wire
) -> None:
    """Whoever speaks first, and whether their port is redirected now or not."""
    if tracked:
        machine.nft("-f", "-", text=TRACKING)
    ends = []
    with contextlib.ExitStack() as stack:
        for port in (2222, 80):
            accepted = stack.enter_context(accepting(networks.evil, port))
            for address in (networks.evil.ipv4, networks.evil.ipv6) * 2:
                ours = stack.enter_context(networks.client.connect(address, port))
                eventually(accepted.copy, "the connection")
                ends.append((ours, accepted.pop()))
                stack.enter_context(ends[-1][1])
                exchange(*ends[-1])
        machine.install("--inside", "inside")
        evil_wire.clear()
        for number, (ours, theirs) in enumerate(ends):
            if number % 4 < 2:
                theirs.sendall(b"more")
                time.sleep(0.01)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                speak_to_the_end(ours)
        assert not [packet for packet in evil_wire.packets if packet.payload and packet.sport not in (80, 2222)]


TRACKING = "table inet tracking { chain c { type filter hook prerouting priority 0; ct state new counter; }; }"


def speak_to_the_end(sock: socket.socket) -> None:
    sock.sendall(b"secret")
    while sock.recv(100):
        pass


def from_client(wire: Wire, networks: TwoNetworks) -> set[str]:
    """What came to the evil host from the client."""
    return arrived(wire, networks.client.ipv4, networks.client.ipv6)


@contextlib.contextmanager
def forwarding_set(host: Host, value: int) -> Iterator[None]:
    def write(number: int) -> None:
        host.run("sysctl", "-qw", f"net.ipv4.ip_forward={number}", f"net.ipv6.conf.all.forwarding={number}")

    write(value)
    try:
        yield
    finally:
        write(1)


def rules(machine: GatewayMachine, chain: str, table: str = "egress_gateway") -> list[dict[str, Any]]:
    listed = json.loads(machine.nft("-j", "list", "chain", "inet", table, chain))["nftables"]
    return [entry["rule"] for entry in listed if "rule" in entry]


def remove_rule(machine: GatewayMachine, comment: str) -> None:
    (handle,) = [rule["handle"] for rule in rules(machine, "refuse") if rule.get("comment") == comment]
    machine.nft("delete", "rule", "inet", "egress_gateway", "refuse", "handle", str(handle))


def count(machine: GatewayMachine, chain: str, comment: str, table: str = "egress_gateway") -> int:
    """How many packets the rules of this comment have matched."""
    found = [rule["expr"] for rule in rules(machine, chain, table) if rule.get("comment") == comment]
    return sum(part["counter"]["packets"] for parts in found for part in parts if "counter" in part)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def is_neighbour_discovery(packet: Packet) -> bool:
    return packet.proto == "icmp6" and packet.payload[:1] in (b"\x87", b"\x88")


def send_as(host: Host, source: str, target: str, number: int, port: int, options: bytes) -> None:
    """A packet from `host` that claims to come from `source`; `options` are hop-by-hop options of IPv6."""
    with a_socket(host, target, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        ends = b"".join(socket.inet_pton(sock.family, address) for address in (source, target))
        if number == socket.IPPROTO_TCP:
            body = struct.pack("!HHIIBBHHH", 4444, port, 1, 0, 0x50, 2, 64240, 0, 0)
        elif number == socket.IPPROTO_UDP:
            body = struct.pack("!HHHH", 4444, port, 20, 0) + b"SECRETSECRET"
        else:
            body = b"SECRET" * 2
        if sock.family == socket.AF_INET6:
            pseudo = ends + struct.pack("!II", len(body), number)
        else:
            pseudo = ends + struct.pack("!HH", number, len(body))
        at = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6}.get(number)
        if at is not None:
            body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
        if sock.family == socket.AF_INET6:
            first = socket.IPPROTO_HOPOPTS if options else number
            header = struct.pack("!IHBB", 6 << 28, len(options) + len(body), first, 64) + ends + options
        else:
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + ends
        sock.sendto(header + body, (target, 0))
