"""Who listens where, as the kernel's tables say it."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from ipaddress import ip_address

import pytest

from egress_gateway.network.sockets import listeners, served_ports, user_name
from support.sockets import free_port

pytestmark = pytest.mark.private_network


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "198.18.0.1", "::1", "::", "3fff::1"])
@pytest.mark.parametrize(("transport", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_listener_is_found_with_its_address_and_its_owner(
    address: str, transport: str, kind: socket.SocketKind
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, kind)) as sock:
        sock.bind((address, 0))
        if transport == "tcp":
            sock.listen()
        port = sock.getsockname()[1]
        (found,) = listeners(transport, port)
        assert found.address == ip_address(address)
        assert found.uid == os.getuid()
        assert found in listeners(transport)
        assert str(found).endswith(f"(pid {os.getpid()}, user {user_name(os.getuid())})")
    assert listeners(transport, port) == []


def test_a_connection_is_no_listener() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))), closing(server.accept()[0]):
            server.close()
            assert listeners("tcp", port) == []


def test_what_others_can_connect_to_is_served_and_loopback_is_not() -> None:
    ours, theirs = free_port(), free_port()
    with closing(socket.create_server(("127.0.0.1", ours))), closing(socket.create_server(("", theirs))):
        assert theirs in served_ports()
        assert ours not in served_ports()


def test_a_user_without_a_name_is_a_number() -> None:
    assert user_name(0) == "root"
    assert user_name(4_000_000_000) == "4000000000"
