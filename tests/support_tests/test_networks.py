"""The lab of two networks: who reaches whom, what the wires see, and that nothing of it stays."""

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from support import netns
from support.ca import SessionCa
from support.dns_server import DnsServer
from support.http import request_over
from support.networks import Host, TwoNetworks, Unavailable, reason_against
from support.origin import Origins
from support.sockets import read_exactly
from support.transparent_gateway import TransparentGateway, redirected
from support.waiting import PATIENCE

pytestmark = [pytest.mark.private_network, pytest.mark.root]


def namespace_of_this_thread() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def descriptors() -> list[str]:
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if link.is_symlink() and "net:" in os.readlink(link))


# Who reaches whom.


@pytest.mark.parametrize("address", ["203.0.113.10", "2001:db8::10", "203.0.113.17", "198.18.1.144", "2001:db8:1::190"])
@pytest.mark.parametrize("who", ["client", "second_client"])
def test_the_router_forwards_to_the_web_and_back(
    networks: TwoNetworks, origin: Origins, address: str, who: str
) -> None:
    with networks.web.entered():
        server = origin.http(address)
    host: Host = getattr(networks, who)
    with host.connect(address, 80) as sock:
        assert request_over(sock, "GET", "/", {"Host": "any.example"}).status == 200
    (connection,) = server.connections
    assert connection.peer[0] == (host.ipv6 if ":" in address else host.ipv4)


@pytest.mark.parametrize("address", ["203.0.113.66", "2001:db8::66", "8.8.8.8", "10.0.0.1", "2606:4700::1", "fd00::1"])
def test_all_the_rest_of_the_world_is_evil(networks: TwoNetworks, origin: Origins, address: str) -> None:
    with networks.evil.entered():
        server = origin.tcp(address, 4444)
    with networks.client.connect(address, 4444) as sock, networks.evil.wire() as wire:
        sock.sendall(b"leak")
        assert read_exactly(sock, 4) == b"leak"
        assert [packet.payload for packet in wire.packets_to(address, 4444) if packet.length] == [b"leak"]
    assert len(server.connections) == 1


def test_clients_reach_each_other_without_the_router(networks: TwoNetworks, origin: Origins) -> None:
    with networks.second_client.entered():
        origin.tcp(networks.second_client.ipv6, 4444)
    with (
        networks.gateway.wire("inside") as wire,
        networks.client.connect(networks.second_client.ipv6, 4444) as sock,
    ):
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        wire.assert_nothing_left(networks.second_client.ipv6)


def test_the_dns_server_answers_over_both_families(networks: TwoNetworks) -> None:
    with networks.names.entered():
        server = DnsServer("::", 53)
    with server as dns:
        dns.set("www.example.com", ["203.0.113.10"])
        for address in (networks.names.ipv4, networks.names.ipv6):
            for transport in ("+notcp", "+tcp"):
                options = ("+short", "+tries=1", "+time=15", transport)
                told = networks.client.run("dig", *options, f"@{address}", "www.example.com")
                assert told.stdout == "203.0.113.10\n"


# The wires.


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_wire_sees_both_directions_once(networks: TwoNetworks, origin: Origins, family: str) -> None:
    evil, client = getattr(networks.evil, family), getattr(networks.client, family)
    with networks.evil.entered():
        origin.tcp(evil, 4444)
    with networks.evil.wire() as wire, networks.client.connect(evil, 4444) as sock:
        sock.sendall(b"ping")
        assert read_exactly(sock, 4) == b"ping"
        (syn,) = wire.syns_to(evil, 4444)
        assert syn.src == client
        for to, port in ((evil, 4444), (client, syn.sport)):
            assert [packet.payload for packet in wire.packets_to(to, port) if packet.length] == [b"ping"]


def test_a_wire_sees_nothing_of_what_others_say(networks: TwoNetworks, origin: Origins) -> None:
    with networks.web.entered():
        origin.tcp(networks.web.ipv4, 4444)
        origin.tcp(networks.web.ipv6, 4444)
    with networks.evil.wire() as wire:
        for address in (networks.web.ipv4, networks.web.ipv6):
            with networks.client.connect(address, 4444) as sock:
                sock.sendall(b"ping")
                assert read_exactly(sock, 4) == b"ping"
        assert not [packet for packet in wire.packets if packet.proto in ("tcp", "udp")]


def test_a_wire_sees_neither_loopback_nor_what_the_switch_floods(networks: TwoNetworks) -> None:
    stranger = "203.0.113.99"
    networks.gateway.run("ip", "neigh", "replace", stranger, "lladdr", "02:00:00:00:00:99", "dev", "outside")
    with networks.gateway.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, networks.evil.wire() as wire, networks.gateway.wire("outside") as sent:
        sock.sendto(b"flooded", (stranger, 4444))
        with networks.evil.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"loopback", ("127.0.0.1", 4444))
        assert len(sent.packets_to(stranger)) == 1
        wire.assert_nothing_left(stranger)
        wire.assert_nothing_left("127.0.0.1")


def test_a_wire_of_no_interface_is_an_error(networks: TwoNetworks) -> None:
    with pytest.raises(OSError, match="no interface with this name"):
        networks.evil.wire("eth1")


def test_a_wire_sees_what_was_sent_just_before_it_is_asked(networks: TwoNetworks) -> None:
    with networks.client.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, networks.evil.wire() as wire:
        for number in range(100):
            sock.sendto(b"%d" % number, (networks.evil.ipv4, 4444))
            assert len(wire.packets_to(networks.evil.ipv4, 4444)) == number + 1


def test_the_wires_of_the_router_are_two(networks: TwoNetworks) -> None:
    with networks.client.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, networks.gateway.wire("inside") as inside, networks.gateway.wire("outside") as outside:
        sock.sendto(b"to the router", (networks.gateway.ipv4, 4444))
        assert len(inside.packets_to(networks.gateway.ipv4)) == 1
        outside.assert_nothing_left(networks.gateway.ipv4)
        sock.sendto(b"through it", (networks.evil.ipv4, 4444))
        for wire in (inside, outside):
            assert [packet.payload for packet in wire.packets_to(networks.evil.ipv4)] == [b"through it"]


# Being in a namespace.


def test_entering_nests_and_restores(networks: TwoNetworks) -> None:
    before, held = namespace_of_this_thread(), descriptors()
    with networks.client.entered():
        client = namespace_of_this_thread()
        with networks.web.entered():
            assert namespace_of_this_thread() not in (before, client)
            with networks.client.entered():
                assert namespace_of_this_thread() == client
        assert namespace_of_this_thread() == client
    assert namespace_of_this_thread() == before
    assert descriptors() == held


def test_an_error_restores_too(networks: TwoNetworks) -> None:
    before = namespace_of_this_thread()
    with pytest.raises(ConnectionRefusedError):
        networks.client.connect(networks.gateway.ipv4, 9)
    with pytest.raises(AssertionError, match=re.escape("client: ['false'] ended with 1")):
        networks.client.run("false")
    assert namespace_of_this_thread() == before


def test_other_threads_stay_where_they_are(networks: TwoNetworks) -> None:
    before, seen = namespace_of_this_thread(), []
    go, done = threading.Event(), threading.Event()

    def look() -> None:
        go.wait(PATIENCE)
        seen.append(namespace_of_this_thread())
        done.set()

    threading.Thread(target=look).start()
    with networks.client.entered():
        go.set()
        done.wait(PATIENCE)
    assert seen == [before]


def test_a_program_runs_in_the_namespace(networks: TwoNetworks) -> None:
    with networks.web.entered():
        there = namespace_of_this_thread()
    assert networks.web.run("readlink", "/proc/self/ns/net").stdout.strip() == there != netns.namespace()


# A gateway on the router.


def test_a_gateway_on_the_router_is_reached_from_outside_of_it(
    networks: TwoNetworks, origin: Origins, ca: SessionCa
) -> None:
    with networks.evil.entered():
        origin.tcp(networks.evil.ipv4, 4444)
        origin.http(networks.evil.ipv4)
    with TransparentGateway(networks.gateway, trusted_ca=ca.pem_path) as gateway:
        assert networks.gateway.processes() == [gateway.pid]
        assert gateway.metrics_get("/readyz")[0] == 200
        networks.client.connect(networks.evil.ipv4, 4444).close()
        with redirected(gateway), networks.evil.wire() as wire:
            with networks.client.connect(networks.evil.ipv4, 80) as sock:
                assert request_over(sock, "GET", "/", {"Host": "any.example"}).status == 403
            for port in (4444, 53):
                with pytest.raises(ConnectionRefusedError):
                    networks.client.connect(networks.evil.ipv4, port)
            for own_port in (gateway.port, gateway.metrics_port):
                with pytest.raises(ConnectionRefusedError):
                    networks.client.connect(networks.gateway.ipv4, own_port)
            wire.assert_nothing_left(networks.evil.ipv4)
        networks.client.connect(networks.evil.ipv4, 4444).close()
    assert networks.gateway.processes() == []


# The end.


def test_nothing_stays() -> None:
    held, threads = descriptors(), set(threading.enumerate())
    interfaces = [name for _, name in socket.if_nameindex()]
    named = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
    with TwoNetworks() as lab:
        assert len(descriptors()) > len(held)
        with lab.client.entered():
            assert {name for _, name in socket.if_nameindex()} >= {"lo", "eth0"}
    assert descriptors() == held
    assert set(threading.enumerate()) <= threads
    assert [name for _, name in socket.if_nameindex()] == interfaces
    assert (sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []) == named


def test_a_process_that_was_left_behind_is_told() -> None:
    lab = TwoNetworks().start()
    with lab.web.entered():
        sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(AssertionError, match=rf"left behind in the networks: {{'web': \[{sleeper.pid}\]}}"):
            lab.close()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_where_there_are_no_namespaces_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unshare", refuse)
    assert reason_against() == "no network namespaces, which need root: [Errno 1] Operation not permitted"
    with pytest.raises(Unavailable):
        TwoNetworks().start()
    monkeypatch.setenv("PATH", "")
    assert reason_against() == "not installed: ip, nft"
