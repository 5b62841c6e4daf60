"""The private network: everything is reachable inside, nothing is reachable outside."""

import os
import socket
import subprocess
import sys
import time

import pytest

from support import netns
from support.sockets import listening
from support.wire import Wire

pytestmark = pytest.mark.private_network

ELSEWHERE = ["8.8.8.8", "169.254.169.254", "10.0.0.9", "2606:4700:4700::1111", "fd00::3"]


def test_this_process_left_the_namespace_it_was_started_in(network: netns.Network) -> None:
    assert network.outside
    assert netns.namespace() != network.outside


def test_loopback_is_the_only_interface_that_is_up() -> None:
    shown = subprocess.run(["ip", "-oneline", "link", "show", "up"], capture_output=True, text=True, check=True)
    assert [line.split(": ")[1] for line in shown.stdout.splitlines()] == ["lo"]


def test_child_processes_are_in_the_same_network() -> None:
    code = "import os; print(os.readlink('/proc/self/ns/net'))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == netns.namespace()


@pytest.mark.parametrize("address", ELSEWHERE)
def test_a_connection_to_anywhere_ends_here_and_is_seen(address: str, wire: Wire) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 443), timeout=2)
    assert len(wire.syns_to(address, 443)) == 1


@pytest.mark.parametrize("address", ["203.0.113.10", *ELSEWHERE])
def test_a_server_can_have_any_address(address: str) -> None:
    with (
        listening(address) as server,
        socket.create_connection(server.getsockname()[:2], timeout=2) as client,
    ):
        accepted, peer = server.accept()
        with accepted:
            assert client.getpeername()[0] == address
            assert peer[0] == (netns.OWN_V6 if ":" in address else netns.OWN_V4)


@pytest.mark.parametrize("address", [netns.BLACKHOLE_V4, netns.BLACKHOLE_V6])
def test_a_black_hole_never_answers(address: str, wire: Wire) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        socket.create_connection((address, 443), timeout=0.3)
    assert time.monotonic() - began > 0.25
    assert bool(wire.syns_to(address, 443)) is (address == netns.BLACKHOLE_V4)


def test_no_other_network_is_ever_set_up() -> None:
    with pytest.raises(OSError, match="still in the network namespace"):
        netns._set_up(netns.namespace())


def test_where_namespaces_are_not_to_be_had_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert netns.enter() == netns.Network(False, "the ip command (package iproute2) is not installed")
    monkeypatch.delattr(os, "unshare")
    assert netns.enter() == netns.Network(False, "network namespaces need Linux")
