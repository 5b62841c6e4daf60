"""Ports that are held for workers: ours alone, shared among them, free again afterwards."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode

from egress_gateway.runner.places import Place, Taken, describe, hold, hold_all
from support.sockets import free_port
from support.waiting import eventually

pytestmark = [pytest.mark.private_network]


@contextlib.contextmanager
def held(spec: str, host: str = "127.0.0.1") -> Iterator[list[Place]]:
    places = hold(ProxyMode.parse(spec), host, None)
    try:
        yield places
    finally:
        for place in places:
            place.held.close()


def test_nobody_else_gets_the_port_whether_or_not_workers_listen() -> None:
    with held("regular@0") as (place,):
        port = place.address[1]
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        with pytest.raises(Taken), held(f"regular@{port}"):
            pass
        with pytest.raises(Taken), held(f"regular@0.0.0.0:{port}"):
            pass
        with closing(place.listen(10)), closing(place.listen(10)), pytest.raises(Taken), held(f"socks5@{port}"):
            pass


def test_before_a_worker_listens_clients_are_refused_and_then_each_worker_gets_some() -> None:
    with held("regular@0") as (place,), contextlib.ExitStack() as stack:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place.address)
        workers = [stack.enter_context(closing(place.listen(100))) for _ in range(2)]
        for _ in range(40):
            stack.enter_context(closing(socket.create_connection(place.address)))
        assert min(accept(40, *workers)) >= 5
        workers[0].close()
        for _ in range(10):
            stack.enter_context(closing(socket.create_connection(place.address)))
        assert accept(10, workers[1]) == [10]


def accept(count: int, *workers: socket.socket) -> list[int]:
    """How many of so many clients each gets. The kernel may still be about to queue who has connected."""
    got = [0] * len(workers)

    def all_are_taken() -> bool:
        for number, listening in enumerate(workers):
            with contextlib.suppress(BlockingIOError):
                while True:
                    listening.accept()[0].close()
                    got[number] += 1
        return sum(got) >= count

    eventually(all_are_taken, lambda: f"{count} clients, not {got}")
    return got


def test_connections_that_are_hardly_over_do_not_keep_the_next_gateway_from_starting() -> None:
    with held("regular@0") as (place,):
        port = place.address[1]
        with closing(place.listen(10)) as worker, closing(socket.create_connection(place.address)) as client:
            server, _ = worker.accept()
            server.close()  # the side that closes first remembers it
            assert client.recv(1) == b""
    with held(f"regular@{port}"):
        pass


def test_one_port_on_all_addresses_for_streams_and_datagrams() -> None:
    with held("dns@0", "") as places:
        assert {(place.held.family, place.is_datagram) for place in places} == {
            (family, datagrams) for family in (socket.AF_INET, socket.AF_INET6) for datagrams in (False, True)
        }
        assert len({place.address[1] for place in places}) == 1
        port = places[0].address[1]
        said = describe(places, ProxyMode.parse("dns@0"))
        assert said == f"DNS server listening at 0.0.0.0:{port} and [::]:{port}."
        with pytest.raises(Taken), held(f"dns@{port}", ""):
            pass
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))


TAKEN = {
    "a port": ("socks5@{port}", "SOCKS v5 proxy failed to listen on 127.0.0.1:{port}: address already in use"),
    "a name that is none": ("regular@nowhere.invalid:{port}", "failed to listen on nowhere.invalid:{port}: "),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_cannot_be_had_is_one_line_with_the_fix(case: str) -> None:
    spec, says = TAKEN[case]
    port = free_port()
    with contextlib.ExitStack() as stack:
        if case == "a port":
            stack.enter_context(closing(socket.create_server(("127.0.0.1", port))))
        with pytest.raises(Taken) as told, held(spec.format(port=port)):
            pass
    line = str(told.value)
    assert says.format(port=port) in line
    assert "(choose another address: --mode " in line
    assert "\n" not in line


def test_what_cannot_be_had_of_several_is_told_at_once_and_nothing_is_kept() -> None:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(2)]
        ports = [sock.getsockname()[1] for sock in taken]
        free = free_port()
        specs = (f"regular@{ports[0]}", f"transparent@{free}", f"socks5@{ports[1]}")
        with pytest.raises(Taken) as told:
            hold_all(map(ProxyMode.parse, specs), "127.0.0.1", None)
        assert len(told.value.args) == 2
        assert all(f"127.0.0.1:{port}: " in line for line, port in zip(told.value.args, ports, strict=True))
        with held(f"regular@{free}"):
            pass


def test_what_is_small_is_not_held_back_to_fill_a_packet() -> None:
    with held("regular@0") as (place,), closing(place.listen(10)) as listening:
        listening.setblocking(True)
        with closing(socket.create_connection(place.address)), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
