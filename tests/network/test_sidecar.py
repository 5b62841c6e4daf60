"""The single-host form: programs of the machine itself are the clients, all but those of the gateway's own user."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from support.attempts import Attempt, a_socket, accepting, answering, arrived, dialled, exchange, ping, tcp, udp
from support.gateway_machine import GatewayMachine
from support.networks import TwoNetworks
from support.ordinary_user import NAME
from support.waiting import PATIENCE, eventually
from support.wire import Wire

pytestmark = [pytest.mark.private_network, pytest.mark.root]

GATEWAY_USER = 65534  # nobody
FAMILIES = {"IPv4": ("ipv4", "203.0.113.1", "127.0.0.1"), "IPv6": ("ipv6", "2001:db8::1", "::1")}
ATTEMPTS: dict[str, Attempt] = {"tcp 2222": tcp(2222), "udp 443": udp(443), "udp 123": udp(123), "ping": ping}
TRACKING = "table inet tracking { chain c { type filter hook prerouting priority 0; ct state new counter; }; }"


@pytest.fixture(scope="module", autouse=True)
def settled(networks: TwoNetworks) -> None:
    """Whoever is there may ping, and is told of every refusal."""
    networks.gateway.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    networks.gateway.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")


@pytest.fixture
def evil_wire(networks: TwoNetworks) -> Iterator[Wire]:
    with networks.evil.wire() as recorder:
        yield recorder


@pytest.fixture
def sidecar(machine: GatewayMachine) -> GatewayMachine:
    machine.install("--sidecar", "--user", NAME)
    return machine


@pytest.mark.parametrize("uid", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_programs_are_refused_at_once_whoever_runs_them(
    family: str, uid: int, networks: TwoNetworks, sidecar: GatewayMachine, evil_wire: Wire
) -> None:
    name, own, _ = FAMILIES[family]
    evil = getattr(networks.evil, name)
    told = {what: attempt(networks.gateway, evil, uid=uid) for what, attempt in ATTEMPTS.items()}
    # A datagram is not even taken.
    assert told.pop("ping") in {"EPERM", "EACCES"}
    assert told == {"tcp 2222": "refused", "udp 443": "EPERM", "udp 123": "EPERM"}
    assert arrived(evil_wire, own) == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gateways_own_user_goes_out_directly(
    family: str, networks: TwoNetworks, sidecar: GatewayMachine, evil_wire: Wire
) -> None:
    name, own, _ = FAMILIES[family]
    evil = getattr(networks.evil, name)
    attempts = ATTEMPTS | {"tcp 443": tcp(443), "udp 53": udp(53), "tcp 53": tcp(53)}
    with accepting(networks.evil, 443):
        for attempt in attempts.values():
            attempt(networks.gateway, evil, uid=GATEWAY_USER)
        assert tcp(443)(networks.gateway, evil, uid=GATEWAY_USER) == "open"
    assert arrived(evil_wire, own) == set(attempts)


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_of_the_rules_and_dns_come_to_the_gateway(
    family: str, networks: TwoNetworks, machine: GatewayMachine, evil_wire: Wire
) -> None:
    name, own, loopback = FAMILIES[family]
    evil = getattr(networks.evil, name)
    with contextlib.ExitStack() as stack:
        # As scripts/gateway does when it is run by its user.
        proxy = stack.enter_context(accepting(networks.gateway, 8080, uid=GATEWAY_USER))
        resolver = stack.enter_context(accepting(networks.gateway, 5353, uid=GATEWAY_USER))
        stack.enter_context(answering(networks.gateway, 5353, uid=GATEWAY_USER))
        machine.install("--sidecar", "--user", NAME)
        for port in (80, 443, 8443):
            sock = stack.enter_context(a_socket(networks.gateway, evil, socket.SOCK_STREAM, uid=1))
            sock.connect((evil, port))
            connection = eventually(lambda: proxy.pop() if proxy else None, "a connection at the proxy port")
            stack.enter_context(connection)
            assert dialled(connection) == (evil, port)
            assert connection.getpeername()[0].removeprefix("::ffff:") == loopback  # one client, whatever the route
            exchange(sock, connection)
        assert udp(53)(networks.gateway, evil, uid=1) == "answered"
        assert tcp(53)(networks.gateway, evil, uid=1) == "open"
        eventually(lambda: resolver, "a connection at the DNS port")
        assert arrived(evil_wire, own) == set()
        # Nobody else uses it.
        assert tcp(8080)(networks.evil, own) == "refused"
        assert udp(5353)(networks.evil, own) == "refused"
        assert tcp(8080)(networks.gateway, loopback) == "open"


@pytest.mark.parametrize("family", FAMILIES)
def test_this_host_itself_is_reached(family: str, networks: TwoNetworks, sidecar: GatewayMachine) -> None:
    _, own, loopback = FAMILIES[family]
    for port in (443, 7777, 53):  # a redirect would not find anybody
        with accepting(networks.gateway, port), answering(networks.gateway, port):
            for address in (own, loopback):
                assert tcp(port)(networks.gateway, address, uid=1) == "open"
                assert udp(port)(networks.gateway, address, uid=1) == "answered"


@pytest.mark.parametrize("family", FAMILIES)
def test_those_who_connect_to_a_server_here_are_answered(
    family: str, networks: TwoNetworks, sidecar: GatewayMachine
) -> None:
    _, own, _ = FAMILIES[family]
    with accepting(networks.gateway, 7777) as accepted, answering(networks.gateway, 7777):
        with networks.evil.connect(own, 7777) as theirs:
            (ours,) = eventually(lambda: accepted, "the connection")
            exchange(theirs, ours)
        assert udp(7777)(networks.evil, own) == "answered"


def test_dhcp_goes_to_the_link_and_to_nobody_else(
    networks: TwoNetworks, sidecar: GatewayMachine, evil_wire: Wire
) -> None:
    """A server that may be anywhere would be a way out and back for root, and in many a container for everybody."""

    def has_arrived(at: str) -> bool:
        return [packet.dst for packet in evil_wire.packets if packet.dport in (67, 547)] == [at]

    for anywhere, client, server, link, elsewhere in (
        ("0.0.0.0", 68, 67, ("255.255.255.255", 67), (networks.evil.ipv4, "203.0.113.255")),
        ("::", 546, 547, ("ff02::1:2", 547), (networks.evil.ipv6, "2001:db8:9::9")),
    ):
        with a_socket(networks.gateway, anywhere, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"outside")
            sock.bind((anywhere, client))
            for address in elsewhere:
                with pytest.raises(PermissionError):
                    sock.sendto(b"request", (address, server))
            evil_wire.clear()
            sock.sendto(b"request", link)
        eventually(partial(has_arrived, link[0]), "the request to arrive")


# Connections that were there before.


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked before", "not tracked before"])
def test_connections_from_before_end_unless_others_had_opened_them(
    tracked: bool, networks: TwoNetworks, machine: GatewayMachine, evil_wire: Wire
) -> None:
    """Such as the session of who has just typed gateway-up."""
    if tracked:
        machine.nft("-f", "-", text=TRACKING)
    own_to_others, others_to_own = [], []
    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(accepting(networks.evil, 2222))
        ours = stack.enter_context(accepting(networks.gateway, 22))
        for name, own, _ in FAMILIES.values():
            for _ in range(2):
                sock = stack.enter_context(networks.gateway.connect(getattr(networks.evil, name), 2222))
                eventually(lambda: theirs, "the connection")
                own_to_others.append((sock, stack.enter_context(theirs.pop())))
                sock = stack.enter_context(networks.evil.connect(own, 22))
                eventually(lambda: ours, "the connection")
                others_to_own.append((stack.enter_context(ours.pop()), sock))
        for accepted, _ in others_to_own:
            accepted.settimeout(PATIENCE)
        for pair in (*own_to_others, *others_to_own):
            exchange(*pair)

        machine.install("--sidecar", "--user", NAME)
        evil_wire.clear()
        for number, (mine, other) in enumerate(others_to_own):
            exchange(*((mine, other) if number % 2 else (other, mine)))  # whoever speaks first
        for number, (mine, other) in enumerate(own_to_others):
            if number % 2:
                other.sendall(b"more")
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                speak_to_the_end(mine)
        assert not [packet for packet in evil_wire.packets if packet.dport == 2222 and packet.payload]


def speak_to_the_end(sock: socket.socket) -> None:
    sock.sendall(b"secret")
    while sock.recv(100):
        pass


# Both forms at once.


def test_a_router_can_be_held_itself(networks: TwoNetworks, machine: GatewayMachine, evil_wire: Wire) -> None:
    machine.install("--inside", "inside", "--sidecar", "--user", NAME)
    for host in (networks.gateway, networks.client):
        for address in (networks.evil.ipv4, networks.evil.ipv6):
            assert tcp(2222)(host, address) == "refused"
    with accepting(networks.evil, 2222):
        assert tcp(2222)(networks.gateway, networks.evil.ipv4, uid=GATEWAY_USER) == "open"
    assert arrived(evil_wire, networks.client.ipv4, networks.client.ipv6) == set()
