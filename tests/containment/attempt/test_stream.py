"""One try over TCP, in the private network where every address is this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from egress_gateway.containment.attempt import stream
from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.attempt.heard import Heard, Kind
from support.netns import BLACKHOLE_V4
from support.networks import TwoNetworks
from support.sockets import listening

pytestmark = pytest.mark.private_network

ADDRESSES = ("203.0.113.10", "2001:db8::10")
REQUEST = b"hello?"


@contextlib.contextmanager
def server(address: str, act: Callable[[socket.socket], None]) -> Iterator[int]:
    """Takes one connection and acts; gives its port."""
    with listening(address) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                assert client.recv(100) == REQUEST
                act(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def ask(address: str, port: int, seconds: float = 30, complete: Callable[[bytes], bool] = bool) -> Heard:
    return stream.ask(address, port, REQUEST, time.monotonic() + seconds, complete=complete)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_answer_is_what_came_until_it_is_complete(address: str) -> None:
    def act(client: socket.socket) -> None:
        for part in (b"one ", b"two ", b"end"):
            client.sendall(part)
            time.sleep(0.01)
        client.recv(1)

    with server(address, act) as port:
        assert ask(address, port, complete=lambda data: b"end" in data) == Heard(Kind.ANSWER, b"one two end")


@pytest.mark.parametrize("address", ADDRESSES)
def test_nobody_listens(address: str) -> None:
    assert ask(address, 9) == Heard(Kind.RESET)


def test_nobody_is_there() -> None:
    started = time.monotonic()
    assert ask(BLACKHOLE_V4, 9, 0.1) == Heard(Kind.SILENT)
    assert 0.1 <= time.monotonic() - started < 10


def test_there_is_no_way(networks: TwoNetworks) -> None:
    networks.client.run("ip", "route", "add", "unreachable", "203.0.113.77")
    with networks.client.entered():
        assert ask("203.0.113.77", 9) == Heard(Kind.ERROR, words="no route to host")


@pytest.mark.parametrize("family", Family)
def test_a_packet_that_may_not_go_further_than_the_router(networks: TwoNetworks, family: Family) -> None:
    target = networks.evil.ipv4 if family is Family.V4 else networks.evil.ipv6
    with networks.client.entered():
        heard = stream.ask(target, 9, REQUEST, time.monotonic() + 30, hops=1)
        assert heard == Heard(Kind.ERROR, words="no route to host")
        assert stream.ask(target, 9, REQUEST, time.monotonic() + 30, hops=2) == Heard(Kind.RESET)


def test_somebody_closes_without_a_word() -> None:
    with server(ADDRESSES[0], lambda client: None) as port:
        assert ask(ADDRESSES[0], port) == Heard(Kind.CLOSED)


def test_somebody_resets_the_connection_that_it_took() -> None:
    def act(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(ADDRESSES[0], act) as port:
        assert ask(ADDRESSES[0], port) == Heard(Kind.CLOSED)


def test_somebody_takes_the_connection_and_says_nothing() -> None:
    with listening(ADDRESSES[0]) as listener:
        heard = ask(ADDRESSES[0], listener.getsockname()[1], 0.1)
    assert heard == Heard(Kind.QUIET)
    assert heard.connected


def test_somebody_says_less_than_is_complete() -> None:
    with server(ADDRESSES[0], lambda client: client.sendall(b"SSH-2.0")) as port:
        assert ask(ADDRESSES[0], port, complete=lambda data: False) == Heard(Kind.ANSWER, b"SSH-2.0")


def test_somebody_never_stops() -> None:
    def act(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client.sendall(bytes(4096))

    with server(ADDRESSES[0], act) as port:
        heard = ask(ADDRESSES[0], port, complete=lambda data: False)
    assert heard.kind is Kind.ANSWER
    assert len(heard.data) < 32768
